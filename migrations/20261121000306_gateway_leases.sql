-- Calls that take long, that cost more than was thought, and that nobody finished.
create function gateway.renew_at(p_now timestamptz, p_request_id text, p_lease_ms integer)
returns boolean
language plpgsql
set search_path = ''
as $$
begin
    if not coalesce(p_lease_ms between 1000 and 3600000, false) then
        raise exception 'a renewal needs a lease in range' using errcode = 'invalid_parameter_value';
    end if;
    update gateway.holds
    set lease_expires_at = greatest(
        lease_expires_at, coalesce(p_now, clock_timestamp()) + p_lease_ms * interval '1 millisecond'
    )
    where request_id = p_request_id;
    return found;
end
$$;
comment on function gateway.renew_at(timestamptz, text, integer) is
    'gateway.renew with the clock as an argument (null: the database''s own), for tests. Granted to nobody.';

create function gateway.renew(p_request_id text, p_lease_ms integer)
returns boolean
language plpgsql
security definer
set search_path = ''
as $$
begin
    return gateway.renew_at(null, p_request_id, p_lease_ms);
end
$$;
comment on function gateway.renew(text, integer) is
    'The hold lives at least this much longer (true), or is there no longer (false). A renewal never shortens a lease.';

create function gateway.reap_at(p_now timestamptz, p_at_most integer)
returns integer
language plpgsql
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_request_ids text[];
    v_count integer;
begin
    select array_agg(due.request_id) into v_request_ids
    from (
        select request_id from gateway.holds
        where lease_expires_at <= v_now
        order by lease_expires_at
        limit least(p_at_most, 1000)
    ) as due;
    if v_request_ids is null then
        return 0;
    end if;
    perform gateway.lock_meters(v_request_ids, '{}', '{}', '{}');
    -- finished by somebody else meanwhile, or renewed: then it is not ours to count
    select array_agg(request_id), count(*) into v_request_ids, v_count
    from gateway.holds
    where request_id = any (v_request_ids) and lease_expires_at <= v_now;
    if v_count > 0 then
        perform gateway.finish(
            v_now, v_request_ids, array_fill(null::uuid, array[v_count]), array_fill('expired'::text, array[v_count]),
            array_fill('unknown'::text, array[v_count]), array_fill(true, array[v_count]), array_fill(null::text, array[v_count]),
            array_fill(null::text, array[v_count]), array_fill(0, array[9 * v_count]), array_fill(0::bigint, array[v_count])
        );
    end if;
    return v_count;
end
$$;
comment on function gateway.reap_at(timestamptz, integer) is
    'gateway.reap with the clock (null: the database''s own) and the size of the batch as arguments, for tests. Granted to nobody.';

create function gateway.reap()
returns integer
language plpgsql
security definer
set search_path = ''
as $$
begin
    return gateway.reap_at(null, 100);
end
$$;
comment on function gateway.reap() is
    'Up to a hundred holds whose lease has run out have been settled at what they held, flagged as estimates: never a silent refund. Returns how many.';

create function gateway.reprice_at(p_now timestamptz, p_request_id text, p_tokens bigint, p_cost_nano_usd bigint)
returns gateway.answer
language plpgsql
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    c_nothing constant bigint[] := '{0,0,0}';
    h gateway.holds;
    a gateway.answer;
    s gateway.subject;
    v_subjects gateway.subject[];
    v_mine integer[];
    v_now timestamptz;
    v_now_ns bigint;
    v_tat_ns bigint;
    v_given_back_ns bigint;
    v_place integer;
begin
    if not coalesce(p_tokens between 0 and 1000000000 and p_cost_nano_usd between 0 and 1000000000000000, false) then
        raise exception 'a hold needs tokens and cost in range' using errcode = 'invalid_parameter_value';
    end if;
    perform gateway.lock_meters(array[p_request_id], '{}', '{}', '{}');
    select * into h from gateway.holds where request_id = p_request_id for update;
    if not found then
        a.verdict := 'lost';
        return a;
    end if;
    v_now := coalesce(p_now, clock_timestamp());
    v_now_ns := (extract(epoch from v_now) * 1000000)::bigint * 1000;
    v_subjects := gateway.subjects(v_now, array[h.user_id], array[h.key_id], array[h.workspace_id]);
    select array_agg(i order by array_position('{user,key,workspace}', standing.scope)) into v_mine
    from unnest(v_subjects) with ordinality as standing (
        scope, subject_id, exists_still, has_plan, r_limit, r_unit_ns, r_tat_ns, r_room, t_limit, t_unit_ns, t_tat_ns,
        t_returned_ns, t_room, f_limit, in_flight, td_limit, nd_limit, nm_limit, td_used, nd_used, nm_used,
        held_tokens, held_nano_usd, i
    )
    -- a meter of another scope with the same id is none of this call's
    where subject_id = case scope when 'user' then h.user_id when 'key' then h.key_id else h.workspace_id end;
    a := gateway.refusal(
        v_now, v_subjects, v_mine, c_nothing, c_nothing, c_nothing,
        0, p_tokens - h.tokens, p_cost_nano_usd - h.cost_nano_usd, p_tokens, p_cost_nano_usd
    );
    if a.verdict is null then
        a.verdict := 'held';
        update gateway.holds set tokens = p_tokens, cost_nano_usd = p_cost_nano_usd where request_id = p_request_id;
    end if;

    foreach v_place in array v_mine loop
        s := v_subjects[v_place];
        v_tat_ns := s.t_tat_ns;
        if a.verdict = 'held' then
            v_given_back_ns := 0;
            if s.t_limit is not null and p_tokens > h.tokens then
                v_tat_ns := v_tat_ns + (p_tokens - h.tokens) * s.t_unit_ns;
            elsif s.t_limit is not null then
                -- as gateway.finish gives back; the end of the call's stretch stays where it was, so that what is given back
                -- later is never more than what the call has left of its own
                v_given_back_ns := greatest(0, least(
                    (h.tokens - p_tokens)::numeric * s.t_unit_ns,
                    case s.scope
                        when 'user' then h.user_tokens_end_ns
                        when 'key' then h.key_tokens_end_ns
                        else h.workspace_tokens_end_ns
                    end - s.t_returned_ns - v_now_ns
                ));
                v_tat_ns := v_tat_ns - v_given_back_ns;
            end if;
            update gateway.meters set
                tokens_tat_ns = case when s.t_limit is null then tokens_tat_ns else v_tat_ns end,
                tokens_limit = coalesce(s.t_limit, tokens_limit),
                tokens_returned_ns = s.t_returned_ns + v_given_back_ns,
                held_tokens = held_tokens + p_tokens - h.tokens,
                held_nano_usd = held_nano_usd + p_cost_nano_usd - h.cost_nano_usd
            where scope = s.scope and subject_id = s.subject_id;
        end if;
        if s.r_limit is not null and (a.requests_limit is null or greatest(s.r_room, 0) < a.requests_remaining) then
            a.requests_limit := s.r_limit;
            a.requests_remaining := greatest(s.r_room, 0);
            a.requests_reset_ms := (s.r_tat_ns - v_now_ns + 999999) / 1000000;
        end if;
        if s.t_limit is not null and (a.tokens_limit is null
            or greatest(s.t_limit - (v_tat_ns - v_now_ns + s.t_unit_ns - 1) / s.t_unit_ns, 0) < a.tokens_remaining) then
            a.tokens_limit := s.t_limit;
            a.tokens_remaining := greatest(s.t_limit - (v_tat_ns - v_now_ns + s.t_unit_ns - 1) / s.t_unit_ns, 0);
            a.tokens_reset_ms := (v_tat_ns - v_now_ns + 999999) / 1000000;
        end if;
    end loop;
    return a;
end
$$;
comment on function gateway.reprice_at(timestamptz, text, bigint, bigint) is
    'gateway.reprice with the clock as an argument (null: the database''s own), for tests. Granted to nobody.';

create function gateway.reprice(p_request_id text, p_tokens bigint, p_cost_nano_usd bigint)
returns gateway.answer
language plpgsql
security definer
set search_path = ''
as $$
begin
    return gateway.reprice_at(null, p_request_id, p_tokens, p_cost_nano_usd);
end
$$;
comment on function gateway.reprice(text, bigint, bigint) is
    'The call holds so much from now on, in all limits of all its subjects, or it is refused and holds what it held. Less is never refused.';

revoke all on function gateway.renew_at(timestamptz, text, integer) from public;
revoke all on function gateway.renew(text, integer) from public;
revoke all on function gateway.reap_at(timestamptz, integer) from public;
revoke all on function gateway.reap() from public;
revoke all on function gateway.reprice_at(timestamptz, text, bigint, bigint) from public;
revoke all on function gateway.reprice(text, bigint, bigint) from public;
grant execute on function gateway.renew(text, integer) to gateway_service;
grant execute on function gateway.reap() to gateway_service;
grant execute on function gateway.reprice(text, bigint, bigint) to gateway_service;
