-- Who a credential belongs to, and what the plan, the key and the workspace allow together: one question for many callers at a
-- time. The gateway keeps an answer for less than a second, so that whatever is edited here counts everywhere within one.
create function gateway.allowed_by_both(one text[], other text[])
returns text[]
language sql
immutable
set search_path = ''
as $$
    select case
        when allowed_by_both.one is null then allowed_by_both.other
        when allowed_by_both.other is null then allowed_by_both.one
        else array(select unnest(allowed_by_both.one) intersect select unnest(allowed_by_both.other))
    end;
$$;
comment on function gateway.allowed_by_both(text[], text[]) is 'What is on both lists; null is the list of everything.';

create function gateway.find_callers(p_user_ids uuid[], p_hmacs bytea[], p_workspace_ids uuid[])
returns table (
    place bigint,
    verdict text,
    user_id uuid,
    key_id uuid,
    workspace_id uuid,
    models text[],
    endpoints text[],
    max_output_tokens integer,
    max_choices integer,
    redact boolean,
    redact_answers boolean,
    store_content boolean,
    use_is_noted boolean
)
language plpgsql
stable
security definer
set search_path = ''
-- planned once a connection, not once a question (which would take three times as long as the answer), and for tables of any size
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
set enable_material = off
as $$
#variable_conflict use_column
begin
    return query
    with asked as (
        select
            asked.place,
            asked.hmac,
            secrets.expires_at as secret_expires_at,
            keys.id as key_id,
            keys.expires_at,
            keys.revoked_at,
            keys.last_used_at,
            keys.models,
            keys.endpoints,
            case when asked.hmac is null then asked.user_id else keys.user_id end as user_id,
            case when asked.hmac is null then asked.workspace_id else keys.workspace_id end as workspace_id
        from unnest(p_user_ids, p_hmacs, p_workspace_ids) with ordinality as asked (user_id, hmac, workspace_id, place)
        left join gateway.api_key_secrets as secrets on secrets.hmac = asked.hmac
        left join gateway.api_keys as keys on keys.id = secrets.key_id
    )
    select
        asked.place,
        case
            when asked.hmac is not null and asked.key_id is null then 'unknown_key'
            when asked.revoked_at is not null then 'revoked_key'
            when asked.expires_at <= now() then 'expired_key'
            when asked.secret_expires_at <= now() then 'rotated_key'
            when users.id is null or users.deleted_at is not null then 'unknown_user'
            when users.banned_until > now() then 'suspended_user'
            when asked.workspace_id is not null and members.role is null then 'not_a_member'
            when members.role = 'viewer' then 'viewer'
            else 'found'
        end,
        asked.user_id,
        asked.key_id,
        asked.workspace_id,
        case -- mostly there is one list or none, and a call of a function for each caller is most of the time it takes
            when num_nonnulls(asked.models, user_plans.models, key_plans.models, workspace_plans.models, settings.models) <= 1
                then coalesce(asked.models, user_plans.models, key_plans.models, workspace_plans.models, settings.models)
            else gateway.allowed_by_both(
                gateway.allowed_by_both(asked.models, user_plans.models),
                gateway.allowed_by_both(key_plans.models, gateway.allowed_by_both(workspace_plans.models, settings.models))
            )
        end,
        asked.endpoints,
        least(user_plans.max_output_tokens, key_plans.max_output_tokens, workspace_plans.max_output_tokens),
        least(user_plans.max_choices, key_plans.max_choices, workspace_plans.max_choices),
        coalesce(settings.redact, false),
        coalesce(settings.redact_answers, false),
        coalesce(settings.store_content, false),
        coalesce(asked.last_used_at > now() - interval '1 minute', false)
    from asked
    left join auth.users as users on users.id = asked.user_id
    left join api.members as members on members.workspace_id = asked.workspace_id and members.user_id = asked.user_id
    left join gateway.limits as of_user on of_user.scope = 'user' and of_user.subject_id = asked.user_id
    left join gateway.plans as user_plans
        on user_plans.name = coalesce(of_user.plan, (select plans.name from gateway.plans where plans.is_default))
    left join gateway.limits as of_key on of_key.scope = 'key' and of_key.subject_id = asked.key_id
    left join gateway.plans as key_plans on key_plans.name = of_key.plan
    left join gateway.limits as of_workspace
        on of_workspace.scope = 'workspace' and of_workspace.subject_id = asked.workspace_id
    left join gateway.plans as workspace_plans on workspace_plans.name = of_workspace.plan
    left join gateway.workspace_settings as settings on settings.workspace_id = asked.workspace_id;
end
$$;
comment on function gateway.find_callers(uuid[], bytea[], uuid[]) is
    'A row for each place of the arrays: with an hmac the caller behind that API key, else the user in the workspace given (or in none). The verdict is found, or why not: unknown_key, revoked_key, expired_key, rotated_key, unknown_user, suspended_user, not_a_member, viewer. Null lists and figures restrict nothing.';

create function gateway.note_use_of_keys(p_key_ids uuid[])
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
    -- a hint for people need not survive a crash, and nobody should wait for the disk because of it
    perform set_config('synchronous_commit', 'off', true);
    update gateway.api_keys
    set last_used_at = now()
    where id in (
        select keys.id
        from gateway.api_keys as keys
        where keys.id = any (p_key_ids)
            and (keys.last_used_at is null or keys.last_used_at <= now() - interval '1 minute')
        order by keys.id
        for no key update skip locked
    );
end
$$;
comment on function gateway.note_use_of_keys(uuid[]) is
    'These keys have just been used. Written once a minute for each at most; a key that somebody is changing at this moment is left for the next time.';

revoke all on function gateway.allowed_by_both(text[], text[]) from public;
revoke all on function gateway.find_callers(uuid[], bytea[], uuid[]) from public;
revoke all on function gateway.note_use_of_keys(uuid[]) from public;
grant execute on function gateway.find_callers(uuid[], bytea[], uuid[]) to gateway_service;
grant execute on function gateway.note_use_of_keys(uuid[]) to gateway_service;
