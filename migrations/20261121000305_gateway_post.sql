-- What the gateway's login calls: a batch of finished calls and of new ones in one transaction, and what keeps a call alive.
create function gateway.admit_lone(
    p_now timestamptz,
    p_subjects gateway.subject[],
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
    s gateway.subject;
    a gateway.answer;
    v_now_ns bigint := (extract(epoch from p_now) * 1000000)::bigint * 1000;
    v_missing integer := num_nonnulls(p_user_id, p_key_id, p_workspace_id);
    v_end_ns bigint;
    v_user_end_ns bigint := 0;
    v_key_end_ns bigint := 0;
    v_workspace_end_ns bigint := 0;
    v_remaining bigint;
begin
    foreach s in array p_subjects loop
        continue when s.subject_id
            is distinct from case s.scope when 'user' then p_user_id when 'key' then p_key_id else p_workspace_id end;
        if not (
            s.exists_still and s.has_plan and s.r_room >= 1 is not false and s.in_flight < s.f_limit is not false
            and p_tokens <= s.t_room is not false
            and (p_tokens = 0 or s.td_used + s.held_tokens + p_tokens <= s.td_limit is not false)
            and (p_cost_nano_usd = 0 or (
                s.nd_used + s.held_nano_usd + p_cost_nano_usd <= s.nd_limit is not false
                and s.nm_used + s.held_nano_usd + p_cost_nano_usd <= s.nm_limit is not false
            ))
        ) then
            return null;
        end if;
        v_missing := v_missing - 1;

        -- they come by name: key, user, workspace; of equally tight rates the user's is told, then the key's
        v_remaining := s.r_room - 1;
        if v_remaining < a.requests_remaining or (v_remaining = a.requests_remaining and s.scope = 'user')
            or (a.requests_remaining is null and v_remaining is not null) then
            a.requests_limit := s.r_limit;
            a.requests_remaining := v_remaining;
            a.requests_reset_ms := (s.r_tat_ns + s.r_unit_ns - v_now_ns + 999999) / 1000000;
        end if;
        if s.t_limit is not null then
            v_end_ns := s.t_tat_ns + p_tokens * s.t_unit_ns;
            v_remaining := s.t_room - p_tokens;
            if a.tokens_remaining is null or v_remaining < a.tokens_remaining
                or (v_remaining = a.tokens_remaining and s.scope = 'user') then
                a.tokens_limit := s.t_limit;
                a.tokens_remaining := v_remaining;
                a.tokens_reset_ms := (v_end_ns - v_now_ns + 999999) / 1000000;
            end if;
            v_end_ns := v_end_ns + s.t_returned_ns;
            if s.scope = 'user' then
                v_user_end_ns := v_end_ns;
            elsif s.scope = 'key' then
                v_key_end_ns := v_end_ns;
            else
                v_workspace_end_ns := v_end_ns;
            end if;
        end if;
    end loop;
    if v_missing > 0 then
        return null;
    end if;

    insert into gateway.holds (
        request_id, attempt, user_id, key_id, workspace_id, model, tokens,
        user_tokens_end_ns, key_tokens_end_ns, workspace_tokens_end_ns, cost_nano_usd, held_at, lease_expires_at
    ) values (
        p_request_id, p_attempt, p_user_id, p_key_id, p_workspace_id, p_model, p_tokens,
        v_user_end_ns, v_key_end_ns, v_workspace_end_ns, p_cost_nano_usd, p_now, p_now + p_lease_ms * interval '1 millisecond'
    )
    on conflict do nothing;
    if not found then
        return null;
    elsif exists (select from gateway.usage where request_id = p_request_id) then
        delete from gateway.holds where request_id = p_request_id;
        return null;
    end if;

    foreach s in array p_subjects loop
        continue when s.subject_id
            is distinct from case s.scope when 'user' then p_user_id when 'key' then p_key_id else p_workspace_id end;
        update gateway.meters set
            requests_tat_ns = case when s.r_limit is null then requests_tat_ns else s.r_tat_ns + s.r_unit_ns end,
            requests_limit = coalesce(s.r_limit, requests_limit),
            tokens_tat_ns = case when s.t_limit is null then tokens_tat_ns else s.t_tat_ns + p_tokens * s.t_unit_ns end,
            tokens_limit = coalesce(s.t_limit, tokens_limit),
            tokens_returned_ns = s.t_returned_ns,
            in_flight = in_flight + 1,
            held_tokens = held_tokens + p_tokens,
            held_nano_usd = held_nano_usd + p_cost_nano_usd
        where scope = s.scope and subject_id = s.subject_id;
    end loop;
    a.verdict := 'held';
    return a;
end
$$;
comment on function gateway.admit_lone(timestamptz, gateway.subject[], text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer) is
    'What gateway.admit does with one call that simply fits, in half the time; null, and nothing has happened, where there is more to say than held. Granted to nobody.';

revoke all on function gateway.admit_lone(timestamptz, gateway.subject[], text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer) from public;

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
    v_now_ns bigint := (extract(epoch from p_now) * 1000000)::bigint * 1000;
    v_today date := p_now at time zone 'UTC';
    v_month date := date_trunc('month', p_now at time zone 'UTC');
    v_tokens bigint := p_counts[1]::bigint + p_counts[2] + p_counts[3] + p_counts[4] + p_counts[5] + p_counts[6] + p_counts[7]
        + p_counts[8];
    v_scope text;
    v_subject_id uuid;
    v_end_ns bigint;
    v_token_ns bigint;
    v_tat_ns bigint;
    v_limit bigint;
    v_returned_ns bigint;
    v_given_back_ns bigint;
begin
    delete from gateway.holds
    where request_id = p_request_id and (p_attempt is null or attempt = p_attempt)
    returning * into h;
    if not found then
        return null;
    end if;
    insert into gateway.usage (
        request_id, settled_at, held_at, user_id, key_id, workspace_id, cost_nano_usd, held_nano_usd, held_tokens,
        input_tokens, cached_input_tokens, cache_write_5m_tokens, cache_write_1h_tokens, input_audio_tokens,
        output_tokens, reasoning_tokens, output_audio_tokens, images,
        estimated, state, outcome, endpoint, model, deployment
    ) values (
        p_request_id, p_now, h.held_at, h.user_id, h.key_id, h.workspace_id, p_cost_nano_usd, h.cost_nano_usd, h.tokens,
        p_counts[1], p_counts[2], p_counts[3], p_counts[4], p_counts[5], p_counts[6], p_counts[7], p_counts[8], p_counts[9],
        p_estimated, p_state, p_outcome, p_endpoint, h.model, p_deployment
    );

    v_scope := 'user';
    v_subject_id := h.user_id;
    v_end_ns := h.user_tokens_end_ns;
    loop
        if v_subject_id is not null then
            select tokens_tat_ns, tokens_limit, tokens_returned_ns into v_tat_ns, v_limit, v_returned_ns
            from gateway.meters
            where scope = v_scope and subject_id = v_subject_id;
            if v_limit is not null then
                v_token_ns := (60000000000 + greatest(v_limit, 1) - 1) / greatest(v_limit, 1);
                if v_tokens > h.tokens then
                    v_tat_ns := least(
                        greatest(v_tat_ns, v_now_ns) + (v_tokens - h.tokens)::numeric * v_token_ns, 8000000000000000000
                    );
                elsif v_end_ns - v_returned_ns > v_now_ns then
                    v_given_back_ns := least((h.tokens - v_tokens)::numeric * v_token_ns, v_end_ns - v_returned_ns - v_now_ns);
                    v_tat_ns := v_tat_ns - v_given_back_ns;
                    v_returned_ns := v_returned_ns + v_given_back_ns;
                end if;
            end if;
            update gateway.meters set
                tokens_tat_ns = v_tat_ns,
                tokens_returned_ns = v_returned_ns,
                in_flight = in_flight - 1,
                held_tokens = held_tokens - h.tokens,
                held_nano_usd = held_nano_usd - h.cost_nano_usd,
                day = greatest(day, v_today),
                day_tokens = case when day < v_today then 0 else day_tokens end + v_tokens,
                day_nano_usd = case when day < v_today then 0 else day_nano_usd end + p_cost_nano_usd,
                month = greatest(month, v_month),
                month_nano_usd = case when month < v_month then 0 else month_nano_usd end + p_cost_nano_usd
            where scope = v_scope and subject_id = v_subject_id;
        end if;
        if v_scope = 'user' then
            v_scope := 'key';
            v_subject_id := h.key_id;
            v_end_ns := h.key_tokens_end_ns;
        elsif v_scope = 'key' then
            v_scope := 'workspace';
            v_subject_id := h.workspace_id;
            v_end_ns := h.workspace_tokens_end_ns;
        else
            exit;
        end if;
    end loop;
    return p_state;
end
$$;
comment on function gateway.finish_lone(timestamptz, text, uuid, text, text, boolean, text, text, integer[], bigint) is
    'What gateway.finish does with one call that somebody settles or voids, with less to prepare; null, and nothing has happened, where there is no such hold. Granted to nobody.';

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
            v_now, gateway.subjects(v_now, p_user_ids, p_key_ids, p_workspace_ids), p_request_ids[1], p_attempts[1],
            p_user_ids[1], p_key_ids[1], p_workspace_ids[1], p_models[1], p_tokens[1], p_costs[1], p_lease_ms[1]
        );
    end if;
    if v_lone.verdict is not null then
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
