-- What the gateway's login calls: one call, or a batch of finished calls and of new ones, in one transaction.
--
-- A call that comes alone pays for everything that is prepared for it: each statement, and each term of each expression. So the two
-- functions for one call say in few statements what is the same for every call, and leave what is not to those for many.
create function gateway.admit_lone(
    p_now timestamptz,
    p_request_id text,
    p_attempt uuid,
    p_user_id uuid,
    p_key_id uuid,
    p_workspace_id uuid,
    p_model text,
    p_tokens bigint,
    p_cost_nano_usd bigint,
    p_lease_ms integer
)
returns gateway.answer
language plpgsql
set search_path = ''
as $$
declare
    m record;
    a gateway.answer;
    v_missing integer := num_nonnulls(p_user_id, p_key_id, p_workspace_id);
    v_now timestamptz;
    v_now_ns bigint;
    v_today date;
    v_month date;
    v_fits boolean := true;
    v_unit_ns bigint;
    v_remaining bigint;
    v_requests_tat_ns bigint;
    v_tokens_tat_ns bigint;
    -- null: no such limit, or no such subject
    v_user_requests_tat_ns bigint;
    v_user_tokens_tat_ns bigint;
    v_user_end_ns bigint;
    v_key_requests_tat_ns bigint;
    v_key_tokens_tat_ns bigint;
    v_key_end_ns bigint;
    v_workspace_requests_tat_ns bigint;
    v_workspace_tokens_tat_ns bigint;
    v_workspace_end_ns bigint;
begin
    for m in
        select
            meters.*,
            -- a user without a plan may not call, and neither may who is no longer a user
            meters.scope = 'user' and (
                plans.name is null or (select true from auth.users where users.id = meters.subject_id) is null
            ) as is_nobody,
            coalesce(own.requests_per_minute, plans.requests_per_minute)::bigint as r_limit,
            coalesce(own.tokens_per_minute, plans.tokens_per_minute) as t_limit,
            coalesce(own.calls_in_flight, plans.calls_in_flight) as f_limit,
            coalesce(own.tokens_per_day, plans.tokens_per_day) as td_limit,
            coalesce(own.nano_usd_per_day, plans.nano_usd_per_day) as nd_limit,
            coalesce(own.nano_usd_per_month, plans.nano_usd_per_month) as nm_limit
        from gateway.meters
        left join gateway.limits as own on own.scope = meters.scope and own.subject_id = meters.subject_id
        left join gateway.plans
            on plans.name = coalesce(
                own.plan, case when meters.scope = 'user' then (select name from gateway.plans where is_default) end
            )
        where meters.scope = any ('{key,user,workspace}') and meters.subject_id = any (array[p_user_id, p_key_id, p_workspace_id])
            and meters.subject_id = case meters.scope when 'user' then p_user_id when 'key' then p_key_id else p_workspace_id end
        order by meters.scope, meters.subject_id
        for no key update of meters
    loop
        if v_now is null then
            -- all of them are locked by now
            v_now := coalesce(p_now, clock_timestamp());
            v_now_ns := (extract(epoch from v_now) * 1000000)::bigint * 1000;
            v_today := v_now at time zone 'UTC';
            v_month := date_trunc('month', v_now at time zone 'UTC');
        end if;
        v_missing := v_missing - 1;
        continue when not v_fits;
        if m.is_nobody or p_tokens > m.t_limit or m.in_flight >= m.f_limit
            -- a rate that was kept under another limit, or has to begin
            or (m.r_limit is not null and m.requests_limit is distinct from m.r_limit)
            or (m.t_limit is not null and m.tokens_limit is distinct from m.t_limit)
            or m.r_limit = 0 or m.t_limit = 0
            or (p_tokens > 0 and m.held_tokens + p_tokens + case when m.day < v_today then 0 else m.day_tokens end > m.td_limit)
            or (p_cost_nano_usd > 0 and (
                m.held_nano_usd + p_cost_nano_usd + case when m.day < v_today then 0 else m.day_nano_usd end > m.nd_limit
                or m.held_nano_usd + p_cost_nano_usd + case when m.month < v_month then 0 else m.month_nano_usd end > m.nm_limit
            )) then
            v_fits := false;
            continue;
        end if;

        -- they come by name: key, user, workspace; of equally tight rates the user's is told, then the key's
        v_requests_tat_ns := null;
        if m.r_limit is not null then
            v_unit_ns := (60000000000 + m.r_limit - 1) / m.r_limit;
            v_requests_tat_ns := greatest(m.requests_tat_ns, v_now_ns) + v_unit_ns;
            v_remaining := m.r_limit - (v_requests_tat_ns - v_now_ns + v_unit_ns - 1) / v_unit_ns;
            v_fits := v_remaining >= 0;
            if a.requests_limit is null or v_remaining < a.requests_remaining
                or (v_remaining = a.requests_remaining and m.scope = 'user') then
                a.requests_limit := m.r_limit;
                a.requests_remaining := v_remaining;
                a.requests_reset_ms := (v_requests_tat_ns - v_now_ns + 999999) / 1000000;
            end if;
        end if;
        v_tokens_tat_ns := null;
        if m.t_limit is not null then
            v_unit_ns := (60000000000 + m.t_limit - 1) / m.t_limit;
            v_tokens_tat_ns := greatest(m.tokens_tat_ns, v_now_ns) + p_tokens * v_unit_ns;
            v_remaining := m.t_limit - (v_tokens_tat_ns - v_now_ns + v_unit_ns - 1) / v_unit_ns;
            v_fits := v_fits and v_remaining >= 0;
            if a.tokens_limit is null or v_remaining < a.tokens_remaining
                or (v_remaining = a.tokens_remaining and m.scope = 'user') then
                a.tokens_limit := m.t_limit;
                a.tokens_remaining := v_remaining;
                a.tokens_reset_ms := (v_tokens_tat_ns - v_now_ns + 999999) / 1000000;
            end if;
        end if;
        if m.scope = 'user' then
            v_user_requests_tat_ns := v_requests_tat_ns;
            v_user_tokens_tat_ns := v_tokens_tat_ns;
            v_user_end_ns := v_tokens_tat_ns + m.tokens_returned_ns;
        elsif m.scope = 'key' then
            v_key_requests_tat_ns := v_requests_tat_ns;
            v_key_tokens_tat_ns := v_tokens_tat_ns;
            v_key_end_ns := v_tokens_tat_ns + m.tokens_returned_ns;
        else
            v_workspace_requests_tat_ns := v_requests_tat_ns;
            v_workspace_tokens_tat_ns := v_tokens_tat_ns;
            v_workspace_end_ns := v_tokens_tat_ns + m.tokens_returned_ns;
        end if;
    end loop;
    if v_missing > 0 then
        a.verdict := 'unmetered';
        return a;
    elsif not v_fits then
        return null;
    end if;

    insert into gateway.holds (
        request_id, attempt, user_id, key_id, workspace_id, model, tokens,
        user_tokens_end_ns, key_tokens_end_ns, workspace_tokens_end_ns, cost_nano_usd, held_at, lease_expires_at
    ) values (
        p_request_id, p_attempt, p_user_id, p_key_id, p_workspace_id, p_model, p_tokens,
        coalesce(v_user_end_ns, 0), coalesce(v_key_end_ns, 0), coalesce(v_workspace_end_ns, 0),
        p_cost_nano_usd, v_now, v_now + p_lease_ms * interval '1 millisecond'
    )
    on conflict do nothing;
    if not found then
        return null;
    elsif exists (select from gateway.usage where request_id = p_request_id) then
        -- asked after the insert, which waits for a call with the same id that is being finished at this moment
        delete from gateway.holds where request_id = p_request_id;
        return null;
    end if;

    update gateway.meters set
        requests_tat_ns = coalesce(
            case scope when 'user' then v_user_requests_tat_ns when 'key' then v_key_requests_tat_ns else v_workspace_requests_tat_ns end,
            requests_tat_ns
        ),
        tokens_tat_ns = coalesce(
            case scope when 'user' then v_user_tokens_tat_ns when 'key' then v_key_tokens_tat_ns else v_workspace_tokens_tat_ns end,
            tokens_tat_ns
        ),
        in_flight = in_flight + 1,
        held_tokens = held_tokens + p_tokens,
        held_nano_usd = held_nano_usd + p_cost_nano_usd
    where scope = any ('{key,user,workspace}') and subject_id = any (array[p_user_id, p_key_id, p_workspace_id])
        and subject_id = case scope when 'user' then p_user_id when 'key' then p_key_id else p_workspace_id end;
    a.verdict := 'held';
    return a;
end
$$;
comment on function gateway.admit_lone(timestamptz, text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer) is
    'What gateway.admit does with one call that simply fits, in a third of the time; locks the meters itself, in the order of gateway.lock_meters, and reads the clock then (p_now null). Where there is more to say than held, nothing has happened: verdict unmetered where a meter is not made yet, else null. Granted to nobody.';

revoke all on function gateway.admit_lone(timestamptz, text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer) from public;

create function gateway.finish_lone(
    p_now timestamptz,
    p_request_id text,
    p_attempt uuid,
    p_state text,
    p_outcome text,
    p_estimated boolean,
    p_endpoint text,
    p_deployment text,
    p_counts integer[],
    p_cost_nano_usd bigint
)
returns text
language plpgsql
set search_path = ''
as $$
declare
    h gateway.holds;
    v_now timestamptz;
    v_now_ns bigint;
    v_today date;
    v_month date;
    v_tokens bigint;
    v_unused numeric; -- times a unit of time it may be more than a bigint holds
begin
    select * into h from gateway.holds where request_id = p_request_id;
    if not found then
        return null;
    end if;
    perform from gateway.meters
    where scope = any ('{key,user,workspace}') and subject_id = any (array[h.user_id, h.key_id, h.workspace_id])
        and subject_id = case scope when 'user' then h.user_id when 'key' then h.key_id else h.workspace_id end
    order by scope, subject_id
    for no key update;
    delete from gateway.holds
    where request_id = p_request_id and (p_attempt is null or attempt = p_attempt)
    returning * into h;
    if not found then
        return null;
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_now_ns := (extract(epoch from v_now) * 1000000)::bigint * 1000;
    v_today := v_now at time zone 'UTC';
    v_month := date_trunc('month', v_now at time zone 'UTC');
    v_tokens := p_counts[1]::bigint + p_counts[2] + p_counts[3] + p_counts[4] + p_counts[5] + p_counts[6] + p_counts[7]
        + p_counts[8];
    v_unused := h.tokens - v_tokens;

    insert into gateway.usage (
        request_id, settled_at, held_at, user_id, key_id, workspace_id, cost_nano_usd, held_nano_usd, held_tokens,
        input_tokens, cached_input_tokens, cache_write_5m_tokens, cache_write_1h_tokens, input_audio_tokens,
        output_tokens, reasoning_tokens, output_audio_tokens, images,
        estimated, state, outcome, endpoint, model, deployment
    ) values (
        p_request_id, v_now, h.held_at, h.user_id, h.key_id, h.workspace_id, p_cost_nano_usd, h.cost_nano_usd, h.tokens,
        p_counts[1], p_counts[2], p_counts[3], p_counts[4], p_counts[5], p_counts[6], p_counts[7], p_counts[8], p_counts[9],
        p_estimated, p_state, p_outcome, p_endpoint, h.model, p_deployment
    );

    update gateway.meters set
        -- given back is at most what of the call's own stretch of time has not passed yet: see gateway.finish
        tokens_tat_ns = case
            when tokens_limit is null then tokens_tat_ns -- no rate has ever been kept
            when v_unused >= 0 then tokens_tat_ns - greatest(0, least(
                v_unused * ((60000000000 + greatest(tokens_limit, 1) - 1) / greatest(tokens_limit, 1)),
                case scope when 'user' then h.user_tokens_end_ns when 'key' then h.key_tokens_end_ns else h.workspace_tokens_end_ns end
                - tokens_returned_ns - v_now_ns
            ))
            else least(
                greatest(tokens_tat_ns, v_now_ns) - v_unused * ((60000000000 + greatest(tokens_limit, 1) - 1) / greatest(tokens_limit, 1)),
                8000000000000000000
            )
        end,
        tokens_returned_ns = case
            when tokens_limit is null or v_unused < 0 then tokens_returned_ns
            else tokens_returned_ns + greatest(0, least(
                v_unused * ((60000000000 + greatest(tokens_limit, 1) - 1) / greatest(tokens_limit, 1)),
                case scope when 'user' then h.user_tokens_end_ns when 'key' then h.key_tokens_end_ns else h.workspace_tokens_end_ns end
                - tokens_returned_ns - v_now_ns
            ))
        end,
        in_flight = in_flight - 1,
        held_tokens = held_tokens - h.tokens,
        held_nano_usd = held_nano_usd - h.cost_nano_usd,
        day = greatest(day, v_today),
        day_tokens = case when day < v_today then 0 else day_tokens end + v_tokens,
        day_nano_usd = case when day < v_today then 0 else day_nano_usd end + p_cost_nano_usd,
        month = greatest(month, v_month),
        month_nano_usd = case when month < v_month then 0 else month_nano_usd end + p_cost_nano_usd
    where scope = any ('{key,user,workspace}') and subject_id = any (array[h.user_id, h.key_id, h.workspace_id])
        and subject_id = case scope when 'user' then h.user_id when 'key' then h.key_id else h.workspace_id end;
    return p_state;
end
$$;
comment on function gateway.finish_lone(timestamptz, text, uuid, text, text, boolean, text, text, integer[], bigint) is
    'What gateway.finish does with one call that somebody settles or voids, with less to prepare; locks its meters itself. Null, and nothing has happened, where there is no such hold. Granted to nobody.';

revoke all on function gateway.finish_lone(timestamptz, text, uuid, text, text, boolean, text, text, integer[], bigint) from public;

create function gateway.post_at(
    p_now timestamptz,
    p_done_ids text[],
    p_done_attempts uuid[],
    p_done_states text[],
    p_done_outcomes text[],
    p_done_estimated boolean[],
    p_done_endpoints text[],
    p_done_deployments text[],
    p_done_counts integer[],
    p_done_costs bigint[],
    p_request_ids text[],
    p_attempts uuid[],
    p_user_ids uuid[],
    p_key_ids uuid[],
    p_workspace_ids uuid[],
    p_models text[],
    p_tokens bigint[],
    p_costs bigint[],
    p_lease_ms integer[]
)
returns setof gateway.answer
language plpgsql
set search_path = ''
-- every table is reached through an index, whatever was known of its size when the plan was made
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz;
    v_lone gateway.answer;
    v_state text;
begin
    if 0 > any (p_done_counts) or 1000000000 < any (p_done_counts) or 0 > any (p_done_costs) or 1000000000000000 < any (p_done_costs)
        or cardinality(p_done_counts) <> 9 * cardinality(p_done_ids) then
        raise exception 'a settlement needs nine counts and a cost in range' using errcode = 'invalid_parameter_value';
    end if;
    if 0 > any (p_tokens) or 1000000000 < any (p_tokens) or 0 > any (p_costs) or 1000000000000000 < any (p_costs)
        or 1000 > any (p_lease_ms) or 3600000 < any (p_lease_ms) then
        raise exception 'a hold needs tokens, cost and lease in range' using errcode = 'invalid_parameter_value';
    end if;

    perform gateway.lock_meters(p_done_ids, p_user_ids, p_key_ids, p_workspace_ids);
    -- the clock is read once the locks are ours, so that time never runs backwards from one holder of a lock to the next
    v_now := coalesce(p_now, clock_timestamp());
    if cardinality(p_done_ids) = 1 then
        v_state := gateway.finish_lone(
            v_now, p_done_ids[1], p_done_attempts[1], p_done_states[1], p_done_outcomes[1], p_done_estimated[1],
            p_done_endpoints[1], p_done_deployments[1], p_done_counts, p_done_costs[1]
        );
    end if;
    if v_state is not null then
        v_lone.verdict := v_state;
        return next v_lone;
        v_lone := null;
    elsif cardinality(p_done_ids) > 0 then
        return query
        select done.state, null, null, null::bigint, null::bigint, null::bigint, null::bigint,
            null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint
        from unnest(gateway.finish(
            v_now, p_done_ids, p_done_attempts, p_done_states, p_done_outcomes, p_done_estimated, p_done_endpoints,
            p_done_deployments, p_done_counts, p_done_costs
        )) as done (state);
    end if;
    if cardinality(p_request_ids) = 1 then
        v_lone := gateway.admit_lone(
            v_now, p_request_ids[1], p_attempts[1], p_user_ids[1], p_key_ids[1], p_workspace_ids[1], p_models[1],
            p_tokens[1], p_costs[1], p_lease_ms[1]
        );
    end if;
    if v_lone.verdict = 'held' then
        return next v_lone;
    elsif cardinality(p_request_ids) > 0 then
        return query
        select * from gateway.admit(
            v_now, p_request_ids, p_attempts, p_user_ids, p_key_ids, p_workspace_ids, p_models, p_tokens, p_costs, p_lease_ms,
            cardinality(p_done_ids) = 0
        );
    end if;
end
$$;
comment on function gateway.post_at(timestamptz, text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]) is
    'gateway.post with the clock as an argument (null: the database''s own), for tests. Granted to nobody.';

create function gateway.post(
    p_done_ids text[],
    p_done_attempts uuid[],
    p_done_states text[],
    p_done_outcomes text[],
    p_done_estimated boolean[],
    p_done_endpoints text[],
    p_done_deployments text[],
    p_done_counts integer[],
    p_done_costs bigint[],
    p_request_ids text[],
    p_attempts uuid[],
    p_user_ids uuid[],
    p_key_ids uuid[],
    p_workspace_ids uuid[],
    p_models text[],
    p_tokens bigint[],
    p_costs bigint[],
    p_lease_ms integer[]
)
returns setof gateway.answer
language plpgsql
security definer
set search_path = ''
as $$
begin
    if 'expired' = any (p_done_states) then
        raise exception 'only the reaper lets calls expire' using errcode = 'invalid_parameter_value';
    end if;
    return query
    select * from gateway.post_at(
        null, p_done_ids, p_done_attempts, p_done_states, p_done_outcomes, p_done_estimated, p_done_endpoints,
        p_done_deployments, p_done_counts, p_done_costs, p_request_ids, p_attempts, p_user_ids, p_key_ids, p_workspace_ids,
        p_models, p_tokens, p_costs, p_lease_ms
    );
end
$$;
comment on function gateway.post(text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]) is
    'First the calls p_done_* are finished (gateway.finish; states settled and voided), then the others are admitted or refused (gateway.admit): an answer each, in this order. All of it has happened, or an exception says that nothing has.';

revoke all on function gateway.post_at(timestamptz, text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]) from public;
revoke all on function gateway.post(text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]) from public;
grant execute on function gateway.post(text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]) to gateway_service;

create function gateway.hold_one(
    p_request_id text,
    p_attempt uuid,
    p_user_id uuid,
    p_key_id uuid,
    p_workspace_id uuid,
    p_model text,
    p_tokens bigint,
    p_cost_nano_usd bigint,
    p_lease_ms integer
)
returns gateway.answer
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    a gateway.answer;
begin
    if not coalesce(
        p_tokens between 0 and 1000000000 and p_cost_nano_usd between 0 and 1000000000000000 and p_lease_ms between 1000 and 3600000,
        false
    ) then
        raise exception 'a hold needs tokens, cost and lease in range' using errcode = 'invalid_parameter_value';
    end if;
    a := gateway.admit_lone(
        null, p_request_id, p_attempt, p_user_id, p_key_id, p_workspace_id, p_model, p_tokens, p_cost_nano_usd, p_lease_ms
    );
    if a.verdict is null then
        select * into a from gateway.admit(
            clock_timestamp(), array[p_request_id], array[p_attempt], array[p_user_id], array[p_key_id], array[p_workspace_id],
            array[p_model], array[p_tokens], array[p_cost_nano_usd], array[p_lease_ms], true
        );
    end if;
    return a;
end
$$;
comment on function gateway.hold_one(text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer) is
    'What gateway.post answers for this one call, sooner. Verdict unmetered: a subject has no meter yet and nothing has happened; gateway.post makes it, or says that there is no such user.';

create function gateway.finish_one(
    p_request_id text,
    p_attempt uuid,
    p_state text,
    p_outcome text,
    p_estimated boolean,
    p_endpoint text,
    p_deployment text,
    p_counts integer[],
    p_cost_nano_usd bigint
)
returns text
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_state text;
begin
    if not coalesce(
        cardinality(p_counts) = 9 and 0 <= all (p_counts) and 1000000000 >= all (p_counts)
        and p_cost_nano_usd between 0 and 1000000000000000 and p_state in ('settled', 'voided'),
        false
    ) then
        raise exception 'a call is settled or voided with nine counts and a cost in range' using errcode = 'invalid_parameter_value';
    end if;
    v_state := gateway.finish_lone(
        null, p_request_id, p_attempt, p_state, p_outcome, p_estimated, p_endpoint, p_deployment, p_counts, p_cost_nano_usd
    );
    if v_state is null then
        select verdict into v_state from gateway.post_at(
            null, array[p_request_id], array[p_attempt], array[p_state], array[p_outcome], array[p_estimated], array[p_endpoint],
            array[p_deployment], p_counts, array[p_cost_nano_usd], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'
        );
    end if;
    return v_state;
end
$$;
comment on function gateway.finish_one(text, uuid, text, text, boolean, text, text, integer[], bigint) is
    'What gateway.post answers for this one finished call, sooner.';

revoke all on function gateway.hold_one(text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer) from public;
revoke all on function gateway.finish_one(text, uuid, text, text, boolean, text, text, integer[], bigint) from public;
grant execute on function gateway.hold_one(text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer) to gateway_service;
grant execute on function gateway.finish_one(text, uuid, text, text, boolean, text, text, integer[], bigint) to gateway_service;
