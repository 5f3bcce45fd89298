-- What the ledger holds at this moment for everybody together, for the gateway's figures (GET /metrics).
create function gateway.standing()
returns table (
    holds bigint,
    held_tokens bigint,
    held_nano_usd bigint,
    oldest_hold_ms bigint,
    subjects_in_debt bigint,
    debt_nano_usd bigint
)
language sql
stable
security definer
set search_path = ''
as $$
    with held as (
        select
            count(*) as calls,
            coalesce(sum(holds.tokens), 0)::bigint as tokens,
            coalesce(sum(holds.cost_nano_usd), 0)::bigint as nano_usd,
            coalesce(extract(epoch from now() - min(holds.held_at)) * 1000, 0)::bigint as oldest_ms
        from gateway.holds as holds
    ),
    debts as (
        select count(*) as subjects, coalesce(sum(beyond.nano_usd), 0)::bigint as nano_usd
        from (
            select
                greatest(
                    meters.month_nano_usd - limits.nano_usd_per_month,
                    case when meters.day = (now() at time zone 'UTC')::date then meters.day_nano_usd - limits.nano_usd_per_day end
                ) as nano_usd
            from gateway.meters as meters
            inner join gateway.effective_limits as limits
                on limits.scope = meters.scope and limits.subject_id = meters.subject_id
            where meters.month = date_trunc('month', now() at time zone 'UTC')::date
        ) as beyond
        where beyond.nano_usd > 0
    )
    select held.calls, held.tokens, held.nano_usd, held.oldest_ms, debts.subjects, debts.nano_usd
    from held
    cross join debts;
$$;
comment on function gateway.standing() is
    'Calls in flight with what they hold, and how many subjects have spent more than a limit of theirs allows, by how much. Reads every meter of this month: ask once a minute.';

grant execute on function gateway.standing() to gateway_service;
