-- API keys. What opens the door is in a table of its own, so that a key can have two secrets while one takes over from the
-- other, and so that whoever reads keys never meets a secret. No secret is kept: only its HMAC, made with a pepper that is not in
-- this database.
create table gateway.api_keys (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references auth.users (id) on delete cascade,
    workspace_id uuid,
    name text not null
        constraint name_is_one_line check (name ~ '^[^[:cntrl:]]{1,100}$' and name = btrim(name)),
    models text[]
        constraint models_are_few check (cardinality(models) <= 100 and octet_length(array_to_string(models, ',')) <= 10000),
    endpoints text[]
        constraint endpoints_are_known
        check (endpoints <@ array['chat', 'responses', 'embeddings', 'messages', 'count_tokens', 'models']),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    -- whoever leaves a workspace leaves their keys to it behind, and they are not there again when the person comes back
    constraint of_a_member foreign key (workspace_id, user_id) references api.members (workspace_id, user_id) on delete cascade
);
comment on table gateway.api_keys is 'What a program calls the gateway with, in the name of one person, in one workspace or in none.';
comment on column gateway.api_keys.id is 'Random. Limits, meters and usage refer to it, and outlive its secrets.';
comment on column gateway.api_keys.user_id is 'The person who made it, and whose limits its calls are charged to.';
comment on column gateway.api_keys.workspace_id is 'The workspace its calls are charged to as well. Null for none; it never changes.';
comment on column gateway.api_keys.name is 'One line of 1 to 100 characters, no space around it.';
comment on column gateway.api_keys.models is 'Public model names it may ask for. Null for all that the person and the workspace may use; never more than those.';
comment on column gateway.api_keys.endpoints is 'Endpoints it may ask. Null for all.';
comment on column gateway.api_keys.created_at is 'When it was made.';
comment on column gateway.api_keys.expires_at is 'When it ends by itself. Null for never.';
comment on column gateway.api_keys.revoked_at is 'When somebody ended it, for good. Null while nobody has.';
comment on column gateway.api_keys.last_used_at is 'The last call with it, a minute old at most. Null before the first.';

create index api_keys_of_person on gateway.api_keys (user_id, created_at);
create index api_keys_of_member on gateway.api_keys (workspace_id, user_id);
comment on index gateway.api_keys_of_person is 'Behind the foreign key to users, the list of one''s keys, and the count of them.';
comment on index gateway.api_keys_of_member is 'Behind the foreign key to members, and the list of a workspace''s keys.';

create table gateway.api_key_secrets (
    hmac bytea primary key
        constraint hmac_is_sha256 check (octet_length(hmac) = 32),
    key_id uuid not null references gateway.api_keys (id) on delete cascade,
    hint text not null
        constraint hint_tells_little check (hint ~ '^bt_live_…[0-9A-Za-z]{4}$'),
    created_at timestamptz not null default now(),
    expires_at timestamptz
);
comment on table gateway.api_key_secrets is 'By which secrets a key is known. A rotation adds one and lets the others end.';
comment on column gateway.api_key_secrets.hmac is 'HMAC-SHA256 of the whole secret under BUTTRESS_KEY_PEPPER, which is not in this database.';
comment on column gateway.api_key_secrets.key_id is 'The key that it opens.';
comment on column gateway.api_key_secrets.hint is 'The prefix and the last four characters, for people to tell keys apart.';
comment on column gateway.api_key_secrets.created_at is 'When it was made; the newest one is the key''s current one.';
comment on column gateway.api_key_secrets.expires_at is 'When it ends because another has taken over. Null for the current one.';

create index api_key_secrets_of_key on gateway.api_key_secrets (key_id, created_at);
comment on index gateway.api_key_secrets_of_key is 'Behind the foreign key, and the search for a key''s newest secret.';

alter table gateway.api_keys enable row level security;
alter table gateway.api_key_secrets enable row level security;

create function gateway.forget_limits_of_key()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    delete from gateway.limits where scope = 'key' and subject_id = old.id;
    return null;
end
$$;
comment on function gateway.forget_limits_of_key() is 'Trigger: a key that is gone has no limits. Its usage stays.';
revoke all on function gateway.forget_limits_of_key() from public;

create trigger api_keys_forget_limits
after delete on gateway.api_keys
for each row
execute function gateway.forget_limits_of_key();
comment on trigger api_keys_forget_limits on gateway.api_keys is 'Limits refer to users, keys and workspaces alike, so no foreign key does it.';
