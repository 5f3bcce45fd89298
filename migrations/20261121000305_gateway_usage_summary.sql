-- What a person has used, read by the API as that person: POST /rest/v1/rpc/usage_summary (Accept-Profile/Content-Profile: api).
-- Arguments, all optional: since date, until date (both inclusive, UTC days), page_size integer, after_day date, after_model text.
-- Rows, newest day first and then by model: day, model, calls, estimated_calls, input_tokens, cached_input_tokens, output_tokens,
-- cost_nano_usd. The next page begins after the last row: give its day and model as after_day and after_model.
create function private.usage_summary(since date, until date, page_size integer, after_day date, after_model text)
returns table (
    day date,
    model text,
    calls bigint,
    estimated_calls bigint,
    input_tokens bigint,
    cached_input_tokens bigint,
    output_tokens bigint,
    cost_nano_usd bigint
)
language sql
stable
security definer
set search_path = ''
as $$
    select
        days.day,
        days.model,
        sum(days.calls)::bigint,
        sum(days.estimated_calls)::bigint,
        sum(days.input_tokens)::bigint,
        sum(days.cached_input_tokens)::bigint,
        sum(days.output_tokens)::bigint,
        sum(days.cost_nano_usd)::bigint
    from (
        select
            (u.settled_at at time zone 'UTC')::date as day,
            u.model,
            1 as calls,
            u.estimated::integer as estimated_calls,
            u.input_tokens::bigint + u.cache_write_5m_tokens + u.cache_write_1h_tokens + u.input_audio_tokens as input_tokens,
            u.cached_input_tokens,
            u.output_tokens::bigint + u.reasoning_tokens + u.output_audio_tokens as output_tokens,
            u.cost_nano_usd
        from gateway.usage as u
        where u.user_id = (select auth.uid())
            and u.state <> 'voided'
            and u.settled_at >= greatest(usage_summary.since, usage_summary.until - 366)::timestamp at time zone 'UTC'
            and u.settled_at < (least(usage_summary.until, usage_summary.after_day) + 1)::timestamp at time zone 'UTC'
        union all
        select
            d.day,
            d.model,
            d.calls,
            d.estimated_calls,
            d.input_tokens + d.cache_write_5m_tokens + d.cache_write_1h_tokens + d.input_audio_tokens,
            d.cached_input_tokens,
            d.output_tokens + d.reasoning_tokens + d.output_audio_tokens,
            d.cost_nano_usd
        from gateway.usage_daily as d
        where d.user_id = (select auth.uid())
            and d.day >= greatest(usage_summary.since, usage_summary.until - 366)
            and d.day <= least(usage_summary.until, usage_summary.after_day)
    ) as days
    where usage_summary.after_day is null
        or days.day < usage_summary.after_day
        or (days.day = usage_summary.after_day and days.model collate "C" > usage_summary.after_model collate "C")
    group by days.day, days.model
    order by days.day desc, days.model collate "C"
    limit least(greatest(usage_summary.page_size, 1), 100);
$$;
comment on function private.usage_summary(date, date, integer, date, text) is
    'The caller''s own usage by day and model, of at most 367 days and 100 rows. Calls that never began (voided) are left out.';

create function api.usage_summary(
    since date default null,
    until date default null,
    page_size integer default 20,
    after_day date default null,
    after_model text default null
)
returns table (
    day date,
    model text,
    calls bigint,
    estimated_calls bigint,
    input_tokens bigint,
    cached_input_tokens bigint,
    output_tokens bigint,
    cost_nano_usd bigint
)
language sql
stable
set search_path = ''
as $$
    select * from private.usage_summary(
        coalesce(usage_summary.since, (now() at time zone 'UTC')::date - 29),
        coalesce(usage_summary.until, (now() at time zone 'UTC')::date),
        coalesce(usage_summary.page_size, 20),
        usage_summary.after_day,
        coalesce(usage_summary.after_model, '')
    );
$$;
comment on function api.usage_summary(date, date, integer, date, text) is
    'What the caller used on the UTC days since … until (inclusive; the last 30 days by default, at most 367), a row for each day and model, newest day first, page_size (1 to 100) rows after (after_day, after_model). Costs are nano-dollars (1e-9 USD).';

revoke all on function private.usage_summary(date, date, integer, date, text) from public;
revoke all on function api.usage_summary(date, date, integer, date, text) from public;
grant execute on function private.usage_summary(date, date, integer, date, text) to authenticated;
grant execute on function api.usage_summary(date, date, integer, date, text) to authenticated;
