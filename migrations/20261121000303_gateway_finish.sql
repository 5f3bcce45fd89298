-- A held call ends once: settled, voided or expired. Whoever deletes its hold decides; everybody later is told what was decided.
create function gateway.finish(
    p_now timestamptz,
    p_request_ids text[],
    p_attempts uuid[],
    p_states text[],
    p_outcomes text[],
    p_estimated boolean[],
    p_endpoints text[],
    p_deployments text[],
    p_counts integer[],
    p_costs bigint[]
)
returns text[]
language plpgsql
set search_path = ''
as $$
declare
    r record;
    m record;
    v_states text[] := array_fill(null::text, array[cardinality(p_request_ids)]);
    v_now_ns bigint := (extract(epoch from p_now) * 1000000)::bigint * 1000;
    v_today date := p_now at time zone 'UTC';
    v_month date := date_trunc('month', p_now at time zone 'UTC');
    v_token_ns bigint;
    v_given_back_ns bigint;
begin
    for r in
        with gone as (
            delete from gateway.holds
            where request_id = any (p_request_ids)
                and coalesce(attempt = p_attempts[array_position(p_request_ids, request_id)], true)
                and (p_states[array_position(p_request_ids, request_id)] <> 'expired' or lease_expires_at <= p_now)
            returning *, array_position(p_request_ids, request_id) as n
        ),
        used as (
            select
                gone.*,
                p_states[n] as state,
                p_counts[9 * n - 8] + case p_states[n] when 'expired' then tokens else 0 end as input_tokens,
                case p_states[n] when 'settled' then p_costs[n] when 'expired' then cost_nano_usd else 0 end as spent_nano_usd
            from gone
        ),
        written as (
            insert into gateway.usage (
                request_id, settled_at, held_at, user_id, key_id, workspace_id, cost_nano_usd, held_nano_usd, held_tokens,
                input_tokens, cached_input_tokens, cache_write_5m_tokens, cache_write_1h_tokens, input_audio_tokens,
                output_tokens, reasoning_tokens, output_audio_tokens, images,
                estimated, state, outcome, endpoint, model, deployment
            )
            select
                request_id, p_now, held_at, user_id, key_id, workspace_id, spent_nano_usd, cost_nano_usd, tokens,
                input_tokens, p_counts[9 * n - 7], p_counts[9 * n - 6], p_counts[9 * n - 5], p_counts[9 * n - 4],
                p_counts[9 * n - 3], p_counts[9 * n - 2], p_counts[9 * n - 1], p_counts[9 * n],
                p_estimated[n], state, p_outcomes[n], p_endpoints[n], model, p_deployments[n]
            from used
        ),
        charged as materialized (
            select
                charged.scope,
                charged.subject_id,
                count(*) as calls,
                array_agg(n order by n) as places,
                array_agg(charged.end_ns order by n) as ends_ns,
                array_agg(tokens order by n) as held_tokens,
                sum(tokens) as all_held_tokens,
                sum(cost_nano_usd) as all_held_nano_usd,
                array_agg(charged.tokens_used order by n) as tokens,
                sum(charged.tokens_used) as all_tokens,
                sum(spent_nano_usd) as all_nano_usd
            from used
            cross join lateral (
                select input_tokens + p_counts[9 * n - 7]::bigint + p_counts[9 * n - 6] + p_counts[9 * n - 5] + p_counts[9 * n - 4]
                    + p_counts[9 * n - 3] + p_counts[9 * n - 2] + p_counts[9 * n - 1] as tokens_used
            ) as counted
            cross join lateral (
                values
                    ('user', user_id, user_tokens_end_ns, tokens_used),
                    ('key', key_id, key_tokens_end_ns, tokens_used),
                    ('workspace', workspace_id, workspace_tokens_end_ns, tokens_used)
            ) as charged (scope, subject_id, end_ns, tokens_used)
            where charged.subject_id is not null
            group by charged.scope, charged.subject_id
        ),
        -- who finishes one call, as most do, needs no second look
        moved as (
            update gateway.meters as meter set
                tokens_tat_ns = case
                    when meter.tokens_limit is null then meter.tokens_tat_ns -- no rate has ever been kept
                    when c.tokens[1] > c.held_tokens[1] then least(
                        greatest(meter.tokens_tat_ns, v_now_ns) + (c.tokens[1] - c.held_tokens[1])::numeric
                        * ((60000000000 + greatest(meter.tokens_limit, 1) - 1) / greatest(meter.tokens_limit, 1)),
                        8000000000000000000
                    )
                    else meter.tokens_tat_ns - greatest(0, least(
                        (c.held_tokens[1] - c.tokens[1])::numeric
                        * ((60000000000 + greatest(meter.tokens_limit, 1) - 1) / greatest(meter.tokens_limit, 1)),
                        c.ends_ns[1] - meter.tokens_returned_ns - v_now_ns
                    ))
                end,
                tokens_returned_ns = case
                    when meter.tokens_limit is null or c.tokens[1] > c.held_tokens[1] then meter.tokens_returned_ns
                    else meter.tokens_returned_ns + greatest(0, least(
                        (c.held_tokens[1] - c.tokens[1])::numeric
                        * ((60000000000 + greatest(meter.tokens_limit, 1) - 1) / greatest(meter.tokens_limit, 1)),
                        c.ends_ns[1] - meter.tokens_returned_ns - v_now_ns
                    ))
                end,
                in_flight = meter.in_flight - 1,
                held_tokens = meter.held_tokens - c.all_held_tokens,
                held_nano_usd = meter.held_nano_usd - c.all_held_nano_usd,
                day = greatest(meter.day, v_today),
                day_tokens = case when meter.day < v_today then 0 else meter.day_tokens end + c.all_tokens,
                day_nano_usd = case when meter.day < v_today then 0 else meter.day_nano_usd end + c.all_nano_usd,
                month = greatest(meter.month, v_month),
                month_nano_usd = case when meter.month < v_month then 0 else meter.month_nano_usd end + c.all_nano_usd
            from charged as c
            where c.calls = 1 and meter.scope = c.scope and meter.subject_id = c.subject_id
        )
        select * from charged
    loop
        if r.calls = 1 then
            v_states[r.places[1]] := p_states[r.places[1]];
            continue;
        end if;
        select scope, subject_id, tokens_tat_ns, tokens_limit, tokens_returned_ns into m
        from gateway.meters
        where scope = r.scope and subject_id = r.subject_id;
        v_token_ns := (60000000000 + greatest(m.tokens_limit, 1) - 1) / greatest(m.tokens_limit, 1);
        for i in 1 .. r.calls loop
            v_states[r.places[i]] := p_states[r.places[i]];
            if m.tokens_limit is null then
                continue; -- no rate has ever been kept
            elsif r.tokens[i] > r.held_tokens[i] then
                m.tokens_tat_ns := least(
                    greatest(m.tokens_tat_ns, v_now_ns) + (r.tokens[i] - r.held_tokens[i])::numeric * v_token_ns,
                    8000000000000000000
                );
            else
                -- Given back is at most what of the call's own stretch of time has not passed yet: what has passed was refilled
                -- already, and returning it a second time would let more through than the limit. Its stretch ends where it
                -- ended at the hold, less whatever has been given back since.
                v_given_back_ns := greatest(0, least(
                    (r.held_tokens[i] - r.tokens[i])::numeric * v_token_ns, r.ends_ns[i] - m.tokens_returned_ns - v_now_ns
                ));
                m.tokens_tat_ns := m.tokens_tat_ns - v_given_back_ns;
                m.tokens_returned_ns := m.tokens_returned_ns + v_given_back_ns;
            end if;
        end loop;
        update gateway.meters set
            tokens_tat_ns = m.tokens_tat_ns,
            tokens_returned_ns = m.tokens_returned_ns,
            in_flight = in_flight - r.calls,
            held_tokens = held_tokens - r.all_held_tokens,
            held_nano_usd = held_nano_usd - r.all_held_nano_usd,
            day = greatest(day, v_today),
            day_tokens = case when day < v_today then 0 else day_tokens end + r.all_tokens,
            day_nano_usd = case when day < v_today then 0 else day_nano_usd end + r.all_nano_usd,
            month = greatest(month, v_month),
            month_nano_usd = case when month < v_month then 0 else month_nano_usd end + r.all_nano_usd
        where scope = r.scope and subject_id = r.subject_id;
    end loop;

    if array_position(v_states, null) is not null then
        -- somebody was faster, or there never was such a hold
        if cardinality(p_request_ids) > (select count(distinct id) from unnest(p_request_ids) as id) then
            raise exception 'a batch finishes each call once' using errcode = 'invalid_parameter_value';
        end if;
        select array_agg(
            coalesce(v_states[n], (
                select usage.state from gateway.usage where usage.request_id = p_request_ids[n] order by settled_at desc limit 1
            ), 'unknown') order by n
        ) into v_states
        from generate_subscripts(p_request_ids, 1) as n;
    end if;
    return v_states;
end
$$;
comment on function gateway.finish(timestamptz, text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[]) is
    'The holds have become usage rows and their meters, which must be locked, have moved from held to used. Each call stands here once. Where an attempt is given only the hold it made is finished; a call expires only when its lease has run out. Nine counts a call, in the order of the columns of gateway.usage. Returns the state each call is in now, or unknown. Granted to nobody.';

revoke all on function gateway.finish(timestamptz, text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[]) from public;
