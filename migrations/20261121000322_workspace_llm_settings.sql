-- A workspace's settings for calls to models: members read them, owners and admins change them and read what was stored.
create function private.llm_settings(workspace uuid)
returns table (
    models text[],
    redact boolean,
    redact_answers boolean,
    store_content boolean,
    store_days integer,
    updated_at timestamptz
)
language plpgsql
stable
security definer
set search_path = ''
as $$
#variable_conflict use_column
begin
    if not exists (select from private.workspaces_of_caller() as mine (id) where mine.id = workspace) then
        perform private.refuse(404, 'workspace_not_found', 'There is no workspace with this id.');
    end if;

    return query
    select
        settings.models,
        coalesce(settings.redact, false),
        coalesce(settings.redact_answers, false),
        coalesce(settings.store_content, false),
        coalesce(settings.store_days, 30),
        coalesce(settings.updated_at, workspaces.created_at)
    from api.workspaces as workspaces
    left join gateway.workspace_settings as settings on settings.workspace_id = workspaces.id
    where workspaces.id = workspace;
end
$$;
comment on function private.llm_settings(uuid) is 'The settings of a workspace of the caller''s. Refuses with workspace_not_found (404).';

create function private.require_workspace_admin(workspace uuid, refusal text)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
    if private.lock_workspace_as_caller(workspace, private.live_caller()) not in ('owner', 'admin') then
        perform private.refuse(403, 'not_allowed', refusal);
    end if;
end
$$;
comment on function private.require_workspace_admin(uuid, text) is
    'The caller is an owner or admin of the workspace, and remains one until this transaction ends. Refuses with workspace_not_found (404), not_allowed (403) and this sentence, session_ended (401).';

create function private.change_llm_settings(workspace uuid, changes jsonb)
returns void
language plpgsql
security definer
set search_path = ''
as $$
declare
    v_models text[];
begin
    perform private.require_workspace_admin(workspace, 'Only owners and admins can change these settings.');

    if jsonb_typeof(changes -> 'models') = 'array' then
        select coalesce(array_agg(distinct listed.name), '{}') into v_models
        from jsonb_array_elements_text(changes -> 'models') as listed (name);
    end if;

    insert into gateway.workspace_settings as settings (
        workspace_id, models, redact, redact_answers, store_content, store_days
    )
    values (
        workspace,
        v_models,
        coalesce((changes ->> 'redact')::boolean, false),
        coalesce((changes ->> 'redact_answers')::boolean, false),
        coalesce((changes ->> 'store_content')::boolean, false),
        coalesce((changes ->> 'store_days')::integer, 30)
    )
    on conflict (workspace_id) do update
    set
        models = case when changes ? 'models' then excluded.models else settings.models end,
        redact = case when changes ? 'redact' then excluded.redact else settings.redact end,
        redact_answers = case when changes ? 'redact_answers' then excluded.redact_answers else settings.redact_answers end,
        store_content = case when changes ? 'store_content' then excluded.store_content else settings.store_content end,
        store_days = case when changes ? 'store_days' then excluded.store_days else settings.store_days end;

    -- who does not want their calls kept any more does not want the old ones kept either
    if (changes ->> 'store_content')::boolean is false then
        delete from gateway.stored_contents where workspace_id = workspace;
    elsif changes ? 'store_days' then
        update gateway.stored_contents
        set expires_at = created_at + (changes ->> 'store_days')::integer * interval '1 day'
        where workspace_id = workspace;
    end if;
end
$$;
comment on function private.change_llm_settings(uuid, jsonb) is
    'What the object names is as it says, the rest as it was. Turning store_content off deletes what was stored; another store_days holds for what is stored already, too.';

create function private.stored_calls(workspace uuid, page_size integer, after_created_at timestamptz, after_id uuid)
returns table (
    id uuid,
    created_at timestamptz,
    expires_at timestamptz,
    call_id text,
    user_id uuid,
    endpoint text,
    model text,
    is_stream boolean,
    is_cut boolean,
    request text,
    answer text
)
language plpgsql
security definer
set search_path = ''
as $$
#variable_conflict use_column
begin
    perform private.require_workspace_admin(workspace, 'Only owners and admins can read stored calls.');

    return query
    select
        stored.id, stored.created_at, stored.expires_at, stored.call_id, stored.user_id, stored.endpoint, stored.model,
        stored.is_stream, stored.is_cut, stored.request, stored.answer
    from gateway.stored_contents as stored
    where stored.workspace_id = workspace
        and stored.expires_at > now()
        and (after_created_at is null or (stored.created_at, stored.id) < (after_created_at, after_id))
    order by stored.created_at desc, stored.id desc
    limit least(greatest(page_size, 1), 101);
end
$$;
comment on function private.stored_calls(uuid, integer, timestamptz, uuid) is
    'The workspace''s stored calls, newest first, after the given one. For its owners and admins.';

create function api.llm_settings(workspace_id uuid)
returns table (
    models text[],
    redact boolean,
    redact_answers boolean,
    store_content boolean,
    store_days integer,
    updated_at timestamptz
)
language sql
stable
set search_path = ''
as $$ select * from private.llm_settings(workspace_id); $$;
comment on function api.llm_settings(uuid) is 'The workspace''s settings for calls to models. Refuses with workspace_not_found (404).';

create function api.change_llm_settings(workspace_id uuid, changes jsonb)
returns table (
    models text[],
    redact boolean,
    redact_answers boolean,
    store_content boolean,
    store_days integer,
    updated_at timestamptz
)
language plpgsql
set search_path = ''
as $$
begin
    perform private.change_llm_settings(workspace_id, changes);
    return query select * from private.llm_settings(workspace_id);
end
$$;
comment on function api.change_llm_settings(uuid, jsonb) is
    'The settings, changed. Refuses with workspace_not_found (404), not_allowed (403), session_ended (401).';

create function api.stored_calls(
    workspace_id uuid,
    page_size integer default 20,
    after_created_at timestamptz default null,
    after_id uuid default null
)
returns table (
    id uuid,
    created_at timestamptz,
    expires_at timestamptz,
    call_id text,
    user_id uuid,
    endpoint text,
    model text,
    is_stream boolean,
    is_cut boolean,
    request text,
    answer text
)
language sql
set search_path = ''
as $$ select * from private.stored_calls(workspace_id, page_size, after_created_at, after_id); $$;
comment on function api.stored_calls(uuid, integer, timestamptz, uuid) is
    'A page of the workspace''s stored calls, newest first. Refuses with workspace_not_found (404), not_allowed (403), session_ended (401).';

grant execute on function private.llm_settings(uuid) to authenticated;
grant execute on function private.change_llm_settings(uuid, jsonb) to authenticated;
grant execute on function private.stored_calls(uuid, integer, timestamptz, uuid) to authenticated;
grant execute on function api.llm_settings(uuid) to authenticated;
grant execute on function api.change_llm_settings(uuid, jsonb) to authenticated;
grant execute on function api.stored_calls(uuid, integer, timestamptz, uuid) to authenticated;
