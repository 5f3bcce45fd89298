-- What a workspace has decided about calls made for it. Before gateway.find_callers, which reads it with every caller.
create table gateway.workspace_settings (
    workspace_id uuid primary key references api.workspaces (id) on delete cascade,
    models text[]
        constraint models_are_names check (cardinality(models) <= 1000 and array_position(models, null) is null),
    redact boolean not null default false,
    redact_answers boolean not null default false,
    store_content boolean not null default false,
    store_days integer not null default 30
        constraint store_days_in_range check (store_days between 1 and 365),
    updated_at timestamptz not null default now()
);
comment on table gateway.workspace_settings is 'One row a workspace that ever changed one of its settings for calls to models; without a row all of them are at their defaults.';
comment on column gateway.workspace_settings.workspace_id is 'The workspace.';
comment on column gateway.workspace_settings.models is 'The public names of the models its calls may use, as fallbacks too. Null: all.';
comment on column gateway.workspace_settings.redact is 'E-mail addresses, phone and card numbers are taken out of requests before a provider, the cache or the store sees them.';
comment on column gateway.workspace_settings.redact_answers is 'The same of answers, before the caller, the cache or the store sees them.';
comment on column gateway.workspace_settings.store_content is 'Requests and answers are kept in gateway.stored_contents. Nothing is ever kept without it.';
comment on column gateway.workspace_settings.store_days is 'How long they are kept.';
comment on column gateway.workspace_settings.updated_at is 'When the row last changed; strictly increasing, so that it serves as its version.';

create trigger workspace_settings_touch_updated_at
before update on gateway.workspace_settings
for each row
when (old.* is distinct from new.*)
execute function private.touch_updated_at();
comment on trigger workspace_settings_touch_updated_at on gateway.workspace_settings is 'Keeps updated_at.';

alter table gateway.workspace_settings enable row level security;
