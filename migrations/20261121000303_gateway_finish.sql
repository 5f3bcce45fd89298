-- A held call ends once: settled, voided or expired. Whoever deletes its hold decides; everybody later is told what was decided.
create function gateway.finish_call(
    p_now timestamptz,
    p_request_id text,
    p_attempt uuid,
    p_state text,
    p_outcome text,
    p_estimated boolean,
    p_deployment text,
    p_input_tokens bigint,
    p_cached_input_tokens bigint,
    p_output_tokens bigint,
    p_cost_nano_usd bigint
)
returns text
language plpgsql
set search_path = ''
set enable_seqscan = off -- a small table is no reason to read every dead version of a hot row
as $$
declare
    h gateway.holds;
    m gateway.meters;
    v_ours boolean := false;
    v_now timestamptz;
    v_now_ns bigint;
    v_month date;
    v_token_ns bigint;
    v_returned_ns bigint;
    v_tokens bigint := p_input_tokens + p_cached_input_tokens + p_output_tokens;
begin
    select * into h from gateway.holds where request_id = p_request_id;
    if found and (p_attempt is null or p_attempt = h.attempt) then
        select * into m from gateway.meters where scope = 'user' and subject_id = h.user_id for no key update;
        v_now := coalesce(p_now, clock_timestamp());
        delete from gateway.holds
        where request_id = p_request_id and attempt = h.attempt and (p_state <> 'expired' or lease_expires_at <= v_now);
        v_ours := found;
    end if;
    if not v_ours then
        return coalesce(
            (select state from gateway.usage where request_id = p_request_id order by settled_at desc limit 1), 'unknown'
        );
    end if;

    if p_state = 'expired' then
        p_input_tokens := h.tokens;
        p_cost_nano_usd := h.cost_nano_usd;
        v_tokens := h.tokens;
    end if;

    v_now_ns := (extract(epoch from v_now) * 1000000)::bigint * 1000;
    v_month := date_trunc('month', v_now at time zone 'UTC');
    if v_month > m.month then
        m.month := v_month;
        m.month_nano_usd := 0;
    end if;

    v_token_ns := gateway.unit_ns(m.tokens_limit);
    if v_tokens > h.tokens then
        m.tokens_tat_ns := least(
            greatest(m.tokens_tat_ns, v_now_ns) + (v_tokens - h.tokens)::numeric * v_token_ns, 8000000000000000000
        );
    else
        -- Given back is at most what of the call's own stretch of time has not passed yet: what has passed was refilled
        -- already, and returning it a second time would let more through than the limit. Its stretch ends where it ended at
        -- the hold, less whatever has been given back since.
        v_returned_ns := greatest(
            0, least((h.tokens - v_tokens) * v_token_ns, h.user_tokens_end_ns - m.tokens_returned_ns - v_now_ns)
        );
        m.tokens_tat_ns := m.tokens_tat_ns - v_returned_ns;
        m.tokens_returned_ns := m.tokens_returned_ns + v_returned_ns;
    end if;

    update gateway.meters set
        tokens_tat_ns = m.tokens_tat_ns,
        tokens_returned_ns = m.tokens_returned_ns,
        in_flight = in_flight - 1,
        month = m.month,
        held_nano_usd = held_nano_usd - h.cost_nano_usd,
        month_nano_usd = m.month_nano_usd + p_cost_nano_usd
    where scope = 'user' and subject_id = h.user_id;

    insert into gateway.usage (
        request_id, settled_at, held_at, user_id, workspace_id, state, outcome, estimated, model, deployment,
        input_tokens, cached_input_tokens, output_tokens, cost_nano_usd, held_tokens, held_nano_usd
    ) values (
        p_request_id, v_now, h.held_at, h.user_id, h.workspace_id, p_state, p_outcome, p_estimated, h.model, p_deployment,
        p_input_tokens, p_cached_input_tokens, p_output_tokens, p_cost_nano_usd, h.tokens, h.cost_nano_usd
    );
    return p_state;
end
$$;
comment on function gateway.finish_call(timestamptz, text, uuid, text, text, boolean, text, bigint, bigint, bigint, bigint) is
    'The hold has become a usage row and its meter has moved from held to spent; returns the state the call is in now, or unknown. Granted to nobody.';

create function gateway.settle_at(
    p_now timestamptz,
    p_request_id text,
    p_outcome text,
    p_estimated boolean,
    p_deployment text,
    p_input_tokens bigint,
    p_cached_input_tokens bigint,
    p_output_tokens bigint,
    p_cost_nano_usd bigint
)
returns text
language plpgsql
set search_path = ''
as $$
begin
    if not coalesce(
        p_input_tokens between 0 and 1000000000 and p_cached_input_tokens between 0 and 1000000000
        and p_output_tokens between 0 and 1000000000 and p_cost_nano_usd between 0 and 1000000000000000, false
    ) then
        raise exception 'a settlement needs tokens and cost in range' using errcode = 'invalid_parameter_value';
    end if;
    return gateway.finish_call(
        p_now, p_request_id, null, 'settled', p_outcome, p_estimated, p_deployment,
        p_input_tokens, p_cached_input_tokens, p_output_tokens, p_cost_nano_usd
    );
end
$$;
comment on function gateway.settle_at(timestamptz, text, text, boolean, text, bigint, bigint, bigint, bigint) is
    'gateway.settle with the clock as an argument (null: the database''s own), for tests. Granted to nobody.';

create function gateway.settle(
    p_request_id text,
    p_outcome text,
    p_estimated boolean,
    p_deployment text,
    p_input_tokens bigint,
    p_cached_input_tokens bigint,
    p_output_tokens bigint,
    p_cost_nano_usd bigint
)
returns text
language plpgsql
security definer
set search_path = ''
as $$
begin
    return gateway.settle_at(
        null, p_request_id, p_outcome, p_estimated, p_deployment,
        p_input_tokens, p_cached_input_tokens, p_output_tokens, p_cost_nano_usd
    );
end
$$;
comment on function gateway.settle(text, text, boolean, text, bigint, bigint, bigint, bigint) is
    'The call has cost this, once. Returns the state the call is in: settled, or what somebody else made it before (voided, expired), or unknown.';

create function gateway.void(p_request_id text, p_attempt uuid default null)
returns text
language plpgsql
security definer
set search_path = ''
as $$
begin
    return gateway.finish_call(null, p_request_id, p_attempt, 'voided', null, false, null, 0, 0, 0, 0);
end
$$;
comment on function gateway.void(text, uuid) is
    'The call has cost nothing, but counts as a request. With an attempt only the hold made by that attempt is voided. Returns the state like gateway.settle.';

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
as $$
declare
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_request_ids text[];
    v_request_id text;
    v_reaped integer := 0;
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

    perform from gateway.meters
    where scope = 'user'
        and subject_id in (select user_id from gateway.holds where request_id = any (v_request_ids))
    order by scope, subject_id
    for no key update;

    foreach v_request_id in array v_request_ids loop
        -- finished by somebody else meanwhile, or renewed: then it is not ours to count
        if exists (select from gateway.holds where request_id = v_request_id and lease_expires_at <= v_now)
            and gateway.finish_call(p_now, v_request_id, null, 'expired', 'unknown', true, null, 0, 0, 0, 0) = 'expired' then
            v_reaped := v_reaped + 1;
        end if;
    end loop;
    return v_reaped;
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

revoke all on function gateway.finish_call(timestamptz, text, uuid, text, text, boolean, text, bigint, bigint, bigint, bigint) from public;
revoke all on function gateway.settle_at(timestamptz, text, text, boolean, text, bigint, bigint, bigint, bigint) from public;
revoke all on function gateway.settle(text, text, boolean, text, bigint, bigint, bigint, bigint) from public;
revoke all on function gateway.void(text, uuid) from public;
revoke all on function gateway.renew_at(timestamptz, text, integer) from public;
revoke all on function gateway.renew(text, integer) from public;
revoke all on function gateway.reap_at(timestamptz, integer) from public;
revoke all on function gateway.reap() from public;
grant execute on function gateway.settle(text, text, boolean, text, bigint, bigint, bigint, bigint) to gateway_service;
grant execute on function gateway.void(text, uuid) to gateway_service;
grant execute on function gateway.renew(text, integer) to gateway_service;
grant execute on function gateway.reap() to gateway_service;
