-- What people do with API keys: make, list, rename, limit, rotate, revoke. The functions of api run as the caller and only pass on.
-- Secrets are made by the API, which sends their HMAC: nobody can use a key that they registered under an HMAC of their own, since
-- they do not know the pepper.
create type api.api_key as (
    id uuid,
    user_id uuid,
    workspace_id uuid,
    name text,
    hint text,
    models text[],
    endpoints text[],
    limits jsonb,
    created_at timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);
comment on type api.api_key is 'An API key as people see it: everything but its secret. limits has all six, null for none.';

create function private.describe_api_key(key gateway.api_keys)
returns api.api_key
language sql
stable
security definer
set search_path = ''
as $$
    select (
        key.id,
        key.user_id,
        key.workspace_id,
        key.name,
        (select hint from gateway.api_key_secrets where key_id = key.id order by created_at desc, expires_at desc nulls first limit 1),
        key.models,
        key.endpoints,
        (
            select jsonb_build_object(
                'requests_per_minute', own.requests_per_minute,
                'tokens_per_minute', own.tokens_per_minute,
                'calls_in_flight', own.calls_in_flight,
                'tokens_per_day', own.tokens_per_day,
                'nano_usd_per_day', own.nano_usd_per_day,
                'nano_usd_per_month', own.nano_usd_per_month
            )
            from (select) as one_row
            left join gateway.limits as own on own.scope = 'key' and own.subject_id = key.id
        ),
        key.created_at,
        key.expires_at,
        key.revoked_at,
        key.last_used_at
    )::api.api_key;
$$;
comment on function private.describe_api_key(gateway.api_keys) is 'The key as people see it.';

create function private.list_api_keys(workspace uuid, key uuid, page_size integer, after_created_at timestamptz, after_id uuid)
returns setof api.api_key
language sql
stable
security definer
set search_path = ''
as $$
    select shown.*
    from (
        select keys.*
        from gateway.api_keys as keys
        where (list_api_keys.workspace is null or keys.workspace_id = list_api_keys.workspace)
            and (list_api_keys.key is null or keys.id = list_api_keys.key)
            and (
                keys.user_id = (select auth.uid())
                -- other people's are shown to whoever asks for them, not among one's own
                or (
                    coalesce(list_api_keys.workspace, list_api_keys.key) is not null
                    and keys.workspace_id = any (array(select private.workspaces_of_caller(array['owner', 'admin'])))
                )
            )
            and (
                list_api_keys.after_id is null
                or (keys.created_at, keys.id) > (list_api_keys.after_created_at, list_api_keys.after_id)
            )
        order by keys.created_at, keys.id
        limit least(greatest(list_api_keys.page_size, 1), 101)
    ) as page
    cross join lateral private.describe_api_key(page) as shown
    order by page.created_at, page.id;
$$;
comment on function private.list_api_keys(uuid, uuid, integer, timestamptz, uuid) is
    'The caller''s own keys, oldest first; of one workspace, and where they are owner or admin there, everybody''s; or one key.';

create function private.set_limits_of_key(key uuid, patch jsonb, may_raise boolean)
returns void
language plpgsql
security definer
set search_path = ''
as $$
declare
    before gateway.limits;
    had jsonb;
    limit_name text;
begin
    select * into before from gateway.limits where scope = 'key' and subject_id = key for update;
    had := to_jsonb(before);

    for limit_name in select jsonb_object_keys(patch) loop
        if limit_name not in (
            'requests_per_minute', 'tokens_per_minute', 'calls_in_flight', 'tokens_per_day', 'nano_usd_per_day',
            'nano_usd_per_month'
        ) then
            perform private.refuse(422, 'limit_unknown', 'There is no limit of this name.');
        end if;
        if not may_raise and had ->> limit_name is not null
            and coalesce((patch ->> limit_name)::bigint > (had ->> limit_name)::bigint, true) then
            perform private.refuse(403, 'limit_raised', 'Only owners and admins of the workspace can raise or lift a limit of this key.');
        end if;
    end loop;

    before := jsonb_populate_record(before, patch);
    insert into gateway.limits as own (
        scope, subject_id, requests_per_minute, tokens_per_minute, calls_in_flight, tokens_per_day, nano_usd_per_day,
        nano_usd_per_month
    ) values (
        'key', key, before.requests_per_minute, before.tokens_per_minute, before.calls_in_flight, before.tokens_per_day,
        before.nano_usd_per_day, before.nano_usd_per_month
    )
    on conflict (scope, subject_id) do update set
        requests_per_minute = excluded.requests_per_minute,
        tokens_per_minute = excluded.tokens_per_minute,
        calls_in_flight = excluded.calls_in_flight,
        tokens_per_day = excluded.tokens_per_day,
        nano_usd_per_day = excluded.nano_usd_per_day,
        nano_usd_per_month = excluded.nano_usd_per_month;
end
$$;
comment on function private.set_limits_of_key(uuid, jsonb, boolean) is
    'The key has these limits of its own, beside those of its person and its workspace, which hold as well. What the patch does not name stays; null lifts a limit. Refuses with limit_raised (403) unless raising is allowed.';

create function private.create_api_key(
    key_name text,
    secret_hmac text,
    secret_hint text,
    workspace uuid,
    only_models text[],
    only_endpoints text[],
    ends_at timestamptz,
    own_limits jsonb
)
returns api.api_key
language plpgsql
security definer
set search_path = ''
as $$
declare
    caller uuid := private.live_caller();
    made gateway.api_keys;
    models_of_plan text[];
begin
    if workspace is not null and private.lock_workspace_as_caller(workspace, caller) = 'viewer' then
        perform private.refuse(403, 'not_allowed', 'Viewers cannot make API keys for a workspace.');
    end if;
    -- one at a time, so that the count below stays true
    perform from api.profiles where id = caller for no key update;

    if ends_at <= now() then
        perform private.refuse(422, 'expires_in_the_past', 'An API key cannot end before it begins.');
    end if;

    select plans.models into models_of_plan
    from gateway.plans
    left join gateway.limits as own on own.scope = 'user' and own.subject_id = caller
    where case when own.plan is null then plans.is_default else plans.name = own.plan end;
    if models_of_plan is not null and not only_models <@ models_of_plan then
        perform private.refuse(403, 'scope_not_allowed', 'A key can have no models that your plan does not have.');
    end if;

    if (
        select count(*) from gateway.api_keys
        where user_id = caller and revoked_at is null and (expires_at is null or expires_at > now())
    ) >= 50 then
        perform private.refuse(409, 'too_many_keys', 'You have 50 API keys. Revoke one that is not needed any more.');
    end if;
    -- Nobody's rows grow without end: of the keys that have ended the latest are kept for the list. Usage keeps their ids.
    delete from gateway.api_keys
    where id in (
        select id from gateway.api_keys
        where user_id = caller and least(revoked_at, expires_at) <= now()
        order by least(revoked_at, expires_at) desc
        offset 50
    );

    insert into gateway.api_keys (user_id, workspace_id, name, models, endpoints, expires_at)
    values (caller, workspace, key_name, only_models, only_endpoints, ends_at)
    returning * into made;
    insert into gateway.api_key_secrets (hmac, key_id, hint)
    values (decode(secret_hmac, 'hex'), made.id, secret_hint);
    if own_limits is not null then
        perform private.set_limits_of_key(made.id, own_limits, may_raise => true);
    end if;
    return private.describe_api_key(made);
end
$$;
comment on function private.create_api_key(text, text, text, uuid, text[], text[], timestamptz, jsonb) is
    'A new key of the caller, who is not only a viewer of its workspace and has fewer than 50 others that live.';

create function private.administers(workspace uuid, person uuid)
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
    select exists (
        select from api.members
        where members.workspace_id = administers.workspace and members.user_id = administers.person
            and members.role in ('owner', 'admin')
    );
$$;
comment on function private.administers(uuid, uuid) is 'Whether the person is owner or admin of the workspace; of none, nobody is.';

create function private.lock_api_key(key uuid, caller uuid)
returns gateway.api_keys
language plpgsql
security definer
set search_path = ''
as $$
declare
    k gateway.api_keys;
begin
    select * into k from gateway.api_keys where id = key for update;
    if k.id is null or not (k.user_id = caller or private.administers(k.workspace_id, caller)) then
        perform private.refuse(404, 'key_not_found', 'There is no API key with this id.');
    end if;
    return k;
end
$$;
comment on function private.lock_api_key(uuid, uuid) is
    'The key, locked. Refuses with key_not_found (404) unless the caller is its person, or owner or admin of its workspace.';

create function private.update_api_key(key uuid, new_name text, limits_patch jsonb)
returns api.api_key
language plpgsql
security definer
set search_path = ''
as $$
declare
    caller uuid := private.live_caller();
    k gateway.api_keys := private.lock_api_key(key, caller);
begin
    if new_name is not null then
        if k.user_id <> caller then
            perform private.refuse(403, 'not_allowed', 'Only its person can rename an API key.');
        end if;
        update gateway.api_keys set name = new_name where id = key returning * into k;
    end if;
    if limits_patch is not null then
        perform private.set_limits_of_key(key, limits_patch, may_raise => k.workspace_id is null or private.administers(k.workspace_id, caller));
    end if;
    return private.describe_api_key(k);
end
$$;
comment on function private.update_api_key(uuid, text, jsonb) is
    'The key has this name (its person only) and these limits: a person sets those of a key of their own; those of a workspace''s key are raised by its owners and admins only.';

create function private.rotate_api_key(key uuid, secret_hmac text, secret_hint text, overlap_s integer)
returns api.api_key
language plpgsql
security definer
set search_path = ''
as $$
declare
    caller uuid := private.live_caller();
    k gateway.api_keys := private.lock_api_key(key, caller);
begin
    if k.user_id <> caller then
        -- an admin with a member's new secret would call in the member's name
        perform private.refuse(403, 'not_allowed', 'Only its person can rotate an API key. You can revoke it.');
    end if;
    if least(k.revoked_at, k.expires_at) <= now() then
        perform private.refuse(409, 'key_ended', 'This API key has ended. Make a new one.');
    end if;
    if not coalesce(overlap_s between 0 and 604800, false) then
        perform private.refuse(422, 'overlap_not_allowed', 'The overlap is 0 to 604800 seconds (a week).');
    end if;

    delete from gateway.api_key_secrets where key_id = key and expires_at <= now();
    if overlap_s > 0 and (select count(*) from gateway.api_key_secrets where key_id = key) >= 4 then
        perform private.refuse(409, 'too_many_secrets', 'This API key has 4 secrets that still work. Wait until one ends, or rotate without overlap.');
    end if;
    update gateway.api_key_secrets
    set expires_at = least(expires_at, now() + overlap_s * interval '1 second')
    where key_id = key;
    insert into gateway.api_key_secrets (hmac, key_id, hint, created_at)
    values (decode(secret_hmac, 'hex'), key, secret_hint, clock_timestamp());
    return private.describe_api_key(k);
end
$$;
comment on function private.rotate_api_key(uuid, text, text, integer) is
    'The key has a new secret, and those before it work for overlap_s seconds more at most. Its person only.';

create function private.revoke_api_key(key uuid)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
    perform private.lock_api_key(key, private.live_caller());
    update gateway.api_keys set revoked_at = now() where id = key and revoked_at is null;
end
$$;
comment on function private.revoke_api_key(uuid) is 'The key opens nothing any more, for good. By its person, or an owner or admin of its workspace.';

create function api.list_api_keys(
    workspace_id uuid default null,
    key_id uuid default null,
    page_size integer default 20,
    after_created_at timestamptz default null,
    after_id uuid default null
)
returns setof api.api_key
language sql
stable
set search_path = ''
as $$
    select * from private.list_api_keys(
        list_api_keys.workspace_id, list_api_keys.key_id, list_api_keys.page_size, list_api_keys.after_created_at,
        list_api_keys.after_id
    );
$$;
comment on function api.list_api_keys(uuid, uuid, integer, timestamptz, uuid) is
    'The caller''s API keys, oldest first, page_size (1 to 101) of them after (after_created_at, after_id); with workspace_id those of that workspace, everybody''s for its owners and admins; with key_id that one.';

create function api.create_api_key(
    name text,
    secret_hmac text,
    secret_hint text,
    workspace_id uuid default null,
    models text[] default null,
    endpoints text[] default null,
    expires_at timestamptz default null,
    limits jsonb default null
)
returns api.api_key
language sql
set search_path = ''
as $$ select private.create_api_key(name, secret_hmac, secret_hint, workspace_id, models, endpoints, expires_at, limits); $$;
comment on function api.create_api_key(text, text, text, uuid, text[], text[], timestamptz, jsonb) is
    'A new API key whose secret has this HMAC (hex). Refuses with workspace_not_found (404), not_allowed, scope_not_allowed (403), too_many_keys (409), expires_in_the_past, limit_unknown (422), session_ended (401).';

create function api.update_api_key(key_id uuid, name text default null, limits jsonb default null)
returns api.api_key
language sql
set search_path = ''
as $$ select private.update_api_key(key_id, name, limits); $$;
comment on function api.update_api_key(uuid, text, jsonb) is
    'The API key with its new name and limits (a merge patch). Refuses with key_not_found (404), not_allowed, limit_raised (403), limit_unknown (422), session_ended (401).';

create function api.rotate_api_key(key_id uuid, secret_hmac text, secret_hint text, overlap_s integer)
returns api.api_key
language sql
set search_path = ''
as $$ select private.rotate_api_key(key_id, secret_hmac, secret_hint, overlap_s); $$;
comment on function api.rotate_api_key(uuid, text, text, integer) is
    'The API key has a new secret with this HMAC (hex); earlier ones end after the overlap. Refuses with key_not_found (404), not_allowed (403), key_ended, too_many_secrets (409), overlap_not_allowed (422), session_ended (401).';

create function api.revoke_api_key(key_id uuid)
returns void
language sql
set search_path = ''
as $$ select private.revoke_api_key(key_id); $$;
comment on function api.revoke_api_key(uuid) is 'The API key has ended. Refuses with key_not_found (404), session_ended (401).';

grant execute on function private.list_api_keys(uuid, uuid, integer, timestamptz, uuid) to authenticated;
grant execute on function private.create_api_key(text, text, text, uuid, text[], text[], timestamptz, jsonb) to authenticated;
grant execute on function private.update_api_key(uuid, text, jsonb) to authenticated;
grant execute on function private.rotate_api_key(uuid, text, text, integer) to authenticated;
grant execute on function private.revoke_api_key(uuid) to authenticated;
grant execute on function api.list_api_keys(uuid, uuid, integer, timestamptz, uuid) to authenticated;
grant execute on function api.create_api_key(text, text, text, uuid, text[], text[], timestamptz, jsonb) to authenticated;
grant execute on function api.update_api_key(uuid, text, jsonb) to authenticated;
grant execute on function api.rotate_api_key(uuid, text, text, integer) to authenticated;
grant execute on function api.revoke_api_key(uuid) to authenticated;
