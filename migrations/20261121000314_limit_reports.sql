-- How far each limit of a person, an API key or a workspace is used, read by the API as whoever asks.
create type api.limit_state as (
    scope text,
    subject_id uuid,
    name text,
    "limit" bigint,
    used bigint,
    held bigint,
    remaining bigint,
    resets_at timestamptz
);
comment on type api.limit_state is
    'One limit now. limit and remaining are null where there is none. held: set aside for calls in flight, beside used. A rate refills steadily: resets_at is when all of it is there again (null: it is), and what calls in flight hold is counted as used. Money is nano-dollars.';

create function private.used_of_rate(tat_ns bigint, under_limit bigint, now_ns bigint, rate_limit bigint)
returns bigint
language sql
immutable
set search_path = ''
as $$
    select case
        when used_of_rate.rate_limit is null or used_of_rate.tat_ns is null or used_of_rate.tat_ns <= used_of_rate.now_ns then 0
        else (
            used_of_rate.tat_ns - used_of_rate.now_ns
            + gateway.unit_ns(coalesce(used_of_rate.under_limit, used_of_rate.rate_limit)) - 1
        ) / gateway.unit_ns(coalesce(used_of_rate.under_limit, used_of_rate.rate_limit))
    end;
$$;
comment on function private.used_of_rate(bigint, bigint, bigint, bigint) is
    'How many units a minute are not there again yet. An edited limit keeps what was used, so it is counted in units of the limit that the time was written under.';

create function private.limits_of(subject_scope text, subject uuid)
returns setof api.limit_state
language sql
stable
security definer
set search_path = ''
as $$
    with moment as (
        select
            clock.at,
            (extract(epoch from clock.at) * 1000000)::bigint * 1000 as ns,
            (clock.at at time zone 'UTC')::date as day,
            date_trunc('month', clock.at at time zone 'UTC')::date as month
        from (select clock_timestamp() as at) as clock
    ),
    state as (
        select
            moment.*,
            own.requests_per_minute, own.tokens_per_minute, own.calls_in_flight, own.tokens_per_day, own.nano_usd_per_day,
            own.nano_usd_per_month,
            private.used_of_rate(meters.requests_tat_ns, meters.requests_limit, moment.ns, own.requests_per_minute) as requests,
            private.used_of_rate(meters.tokens_tat_ns, meters.tokens_limit, moment.ns, own.tokens_per_minute) as tokens,
            coalesce(meters.in_flight, 0) as in_flight,
            coalesce(meters.held_tokens, 0) as held_tokens,
            coalesce(meters.held_nano_usd, 0) as held_nano_usd,
            case when meters.day >= moment.day then meters.day_tokens else 0 end as day_tokens,
            case when meters.day >= moment.day then meters.day_nano_usd else 0 end as day_nano_usd,
            case when meters.month >= moment.month then meters.month_nano_usd else 0 end as month_nano_usd,
            (moment.day + 1)::timestamp at time zone 'UTC' as next_day,
            (moment.month + interval '1 month') at time zone 'UTC' as next_month
        from moment
        left join gateway.effective_limits as own
            on own.scope = limits_of.subject_scope and own.subject_id = limits_of.subject
        left join gateway.meters on meters.scope = limits_of.subject_scope and meters.subject_id = limits_of.subject
    )
    select
        limits_of.subject_scope,
        limits_of.subject,
        one.name,
        one.at_most,
        one.used,
        one.held,
        case when one.at_most is not null then greatest(0, one.at_most - one.used - one.held) end,
        one.resets_at
    from state
    cross join lateral (
        values
            (
                'requests_per_minute', state.requests_per_minute::bigint, state.requests, 0::bigint,
                state.at + nullif(state.requests, 0) * gateway.unit_ns(state.requests_per_minute) / 1000 * interval '1 microsecond'
            ),
            (
                'tokens_per_minute', state.tokens_per_minute, state.tokens, 0,
                state.at + nullif(state.tokens, 0) * gateway.unit_ns(state.tokens_per_minute) / 1000 * interval '1 microsecond'
            ),
            ('calls_in_flight', state.calls_in_flight::bigint, state.in_flight::bigint, 0, null),
            ('tokens_per_day', state.tokens_per_day, state.day_tokens, state.held_tokens, state.next_day),
            ('nano_usd_per_day', state.nano_usd_per_day, state.day_nano_usd, state.held_nano_usd, state.next_day),
            ('nano_usd_per_month', state.nano_usd_per_month, state.month_nano_usd, state.held_nano_usd, state.next_month)
    ) as one (name, at_most, used, held, resets_at);
$$;
comment on function private.limits_of(text, uuid) is 'The six limits of this user, key or workspace as they stand now.';

create function private.limit_report(key uuid, workspace uuid)
returns setof api.limit_state
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
    caller uuid := (select auth.uid());
begin
    if key is not null then
        if not exists (
            select from gateway.api_keys as keys
            where keys.id = key and (keys.user_id = caller or private.administers(keys.workspace_id, caller))
        ) then
            perform private.refuse(404, 'key_not_found', 'There is no API key with this id.');
        end if;
        return query select * from private.limits_of('key', key);
    elsif workspace is not null then
        if not workspace = any (array(select private.workspaces_of_caller())) then
            perform private.refuse(404, 'workspace_not_found', 'There is no workspace with this id.');
        end if;
        return query select * from private.limits_of('workspace', workspace);
    else
        return query select * from private.limits_of('user', caller);
        return query
        select states.*
        from gateway.api_keys as keys
        cross join lateral private.limits_of('key', keys.id) as states
        where keys.user_id = caller
            and keys.revoked_at is null
            and (keys.expires_at is null or keys.expires_at > now())
        order by keys.created_at, keys.id;
    end if;
end
$$;
comment on function private.limit_report(uuid, uuid) is
    'The limits of one key (its person''s, or for owners and admins of its workspace), of a workspace (for its members), or of the caller and each of their keys that live.';

create function api.limit_report(key_id uuid default null, workspace_id uuid default null)
returns setof api.limit_state
language sql
stable
set search_path = ''
as $$ select * from private.limit_report(limit_report.key_id, limit_report.workspace_id); $$;
comment on function api.limit_report(uuid, uuid) is
    'Each limit as it stands, six rows a subject: of one key, of a workspace, or of the caller and each of their keys. Refuses with key_not_found, workspace_not_found (404).';

revoke all on function private.used_of_rate(bigint, bigint, bigint, bigint) from public;
revoke all on function private.limits_of(text, uuid) from public;
revoke all on function private.limit_report(uuid, uuid) from public;
revoke all on function api.limit_report(uuid, uuid) from public;
grant execute on function private.limit_report(uuid, uuid) to authenticated;
grant execute on function api.limit_report(uuid, uuid) to authenticated;
