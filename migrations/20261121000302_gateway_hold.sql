-- hold: every limit of the caller is charged for a call, or none is, in one round trip.
--
-- The rates are GCRA: one timestamp a key, the "theoretical arrival time" (tat) at which all of the limit is there again. A unit
-- moves it on by 60 s / limit (rounded up to whole nanoseconds: never faster than the limit); a call fits when the tat is then
-- no further ahead than `limit` units. So `limit` units fit at once, and the wait of a refused call is exact.
create type gateway.hold_answer as (
    verdict text,
    limit_name text,
    retry_after_ms bigint,
    requests_limit bigint,
    requests_remaining bigint,
    requests_reset_ms bigint,
    tokens_limit bigint,
    tokens_remaining bigint,
    tokens_reset_ms bigint,
    in_flight_limit bigint,
    in_flight_remaining bigint,
    month_limit bigint,
    month_remaining bigint,
    month_reset_ms bigint
);
comment on type gateway.hold_answer is
    'verdict: held, refused (fits after retry_after_ms), too_large (never fits), duplicate, unknown_user. limit_name: what stood in the way. Then each limit as it stands.';

create function gateway.unit_ns(units_per_minute bigint)
returns bigint
language sql
immutable
set search_path = ''
return (60000000000 + greatest(units_per_minute, 1) - 1) / greatest(units_per_minute, 1);
comment on function gateway.unit_ns(bigint) is 'How long one unit of a rate takes to refill, in nanoseconds, rounded up.';

create function gateway.tat_under_limit(tat_ns bigint, now_ns bigint, old_limit bigint, new_limit bigint)
returns bigint
language sql
immutable
set search_path = ''
return least(
    now_ns + ceil((tat_ns - now_ns)::numeric * gateway.unit_ns(new_limit) / gateway.unit_ns(old_limit)),
    8000000000000000000
)::bigint;
comment on function gateway.tat_under_limit(bigint, bigint, bigint, bigint) is
    'The tat after an edit of its limit, for a tat in the future: as many units count as used as before. At most the year 2223.';

create function gateway.hold_at(
    p_now timestamptz,
    p_request_id text,
    p_attempt uuid,
    p_user_id uuid,
    p_workspace_id uuid,
    p_model text,
    p_tokens bigint,
    p_cost_nano_usd bigint,
    p_lease_ms integer
)
returns gateway.hold_answer
language plpgsql
set search_path = ''
set enable_seqscan = off -- a small table is no reason to read every dead version of a hot row
as $$
declare
    l gateway.effective_limits;
    m gateway.meters;
    a gateway.hold_answer;
    v_now timestamptz;
    v_now_ns bigint;
    v_month date;
    v_month_reset_ms bigint;
    v_request_ns bigint;
    v_token_ns bigint;
    v_wait_ms bigint;
    v_held boolean := false;
begin
    if not coalesce(p_tokens between 0 and 1000000000 and p_cost_nano_usd between 0 and 1000000000000000
                    and p_lease_ms between 1000 and 3600000, false) then
        raise exception 'a hold needs tokens, cost and lease in range' using errcode = 'invalid_parameter_value';
    end if;

    select * into l from gateway.effective_limits where scope = 'user' and subject_id = p_user_id;
    if not found then
        if exists (select from auth.users where id = p_user_id) then
            raise exception 'gateway.plans has no default plan' using errcode = 'object_not_in_prerequisite_state';
        end if;
        a.verdict := 'unknown_user';
        return a;
    end if;
    v_request_ns := gateway.unit_ns(l.requests_per_minute);
    v_token_ns := gateway.unit_ns(l.tokens_per_minute);

    loop
        select * into m from gateway.meters where scope = 'user' and subject_id = p_user_id for no key update;
        exit when found;
        insert into gateway.meters (scope, subject_id) values ('user', p_user_id) on conflict do nothing;
    end loop;

    -- the clock is read once the lock is ours, so that time never runs backwards from one holder of the lock to the next
    v_now := coalesce(p_now, clock_timestamp());
    v_now_ns := (extract(epoch from v_now) * 1000000)::bigint * 1000;
    v_month := date_trunc('month', v_now at time zone 'UTC');
    if v_month > m.month then
        m.month := v_month;
        m.month_nano_usd := 0;
    end if;
    v_month_reset_ms := ceil(extract(epoch from ((m.month + interval '1 month') at time zone 'UTC') - v_now) * 1000);

    if m.requests_tat_ns <= v_now_ns then
        m.requests_tat_ns := v_now_ns;
    elsif m.requests_limit <> l.requests_per_minute then
        m.requests_tat_ns := gateway.tat_under_limit(m.requests_tat_ns, v_now_ns, m.requests_limit, l.requests_per_minute);
    end if;
    if m.tokens_tat_ns <= v_now_ns then
        m.tokens_tat_ns := v_now_ns;
    elsif m.tokens_limit <> l.tokens_per_minute then
        -- what calls in flight held under the old limit is not given back under the new one
        m.tokens_returned_ns := m.tokens_returned_ns + m.tokens_tat_ns - v_now_ns;
        m.tokens_tat_ns := gateway.tat_under_limit(m.tokens_tat_ns, v_now_ns, m.tokens_limit, l.tokens_per_minute);
    end if;
    m.requests_limit := l.requests_per_minute;
    m.tokens_limit := l.tokens_per_minute;

    -- the limit that stands in the way longest is the one to name; one that the call never fits stands in the way for ever
    a.retry_after_ms := 0;
    v_wait_ms := case
        when l.requests_per_minute < 1 then 9000000000000
        else (m.requests_tat_ns + v_request_ns - v_now_ns - l.requests_per_minute * v_request_ns + 999999) / 1000000
    end;
    if v_wait_ms > a.retry_after_ms then
        a.limit_name := 'requests_per_minute';
        a.retry_after_ms := v_wait_ms;
    end if;
    v_wait_ms := case
        when p_tokens > l.tokens_per_minute then 9000000000000
        else (m.tokens_tat_ns + p_tokens * v_token_ns - v_now_ns - l.tokens_per_minute * v_token_ns + 999999) / 1000000
    end;
    if v_wait_ms > a.retry_after_ms then
        a.limit_name := 'tokens_per_minute';
        a.retry_after_ms := v_wait_ms;
    end if;
    v_wait_ms := case
        when l.calls_in_flight < 1 then 9000000000000
        when m.in_flight >= l.calls_in_flight then 1000
        else 0
    end;
    if v_wait_ms > a.retry_after_ms then
        a.limit_name := 'calls_in_flight';
        a.retry_after_ms := v_wait_ms;
    end if;
    v_wait_ms := case
        when p_cost_nano_usd = 0 or m.month_nano_usd + m.held_nano_usd + p_cost_nano_usd <= l.nano_usd_per_month then 0
        when p_cost_nano_usd > l.nano_usd_per_month then 9000000000000
        when m.month_nano_usd + p_cost_nano_usd <= l.nano_usd_per_month then 1000
        else v_month_reset_ms
    end;
    if v_wait_ms > a.retry_after_ms then
        a.limit_name := 'nano_usd_per_month';
        a.retry_after_ms := v_wait_ms;
    end if;

    if a.limit_name is null then
        insert into gateway.holds (
            request_id, attempt, user_id, workspace_id, model, tokens, user_tokens_end_ns, key_tokens_end_ns, workspace_tokens_end_ns, cost_nano_usd, held_at, lease_expires_at
        ) values (
            p_request_id, p_attempt, p_user_id, p_workspace_id, p_model, p_tokens,
            m.tokens_tat_ns + p_tokens * v_token_ns + m.tokens_returned_ns, 0, 0,
            p_cost_nano_usd, v_now, v_now + p_lease_ms * interval '1 millisecond'
        )
        on conflict do nothing;
        v_held := found;
        -- asked after the insert: it waits for a call with the same id that is being finished at this moment
        if v_held and exists (select from gateway.usage where request_id = p_request_id) then
            delete from gateway.holds where request_id = p_request_id;
            v_held := false;
        end if;
    end if;

    if v_held then
        m.requests_tat_ns := m.requests_tat_ns + v_request_ns;
        m.tokens_tat_ns := m.tokens_tat_ns + p_tokens * v_token_ns;
        m.in_flight := m.in_flight + 1;
        m.held_nano_usd := m.held_nano_usd + p_cost_nano_usd;
        update gateway.meters set
            requests_tat_ns = m.requests_tat_ns,
            requests_limit = m.requests_limit,
            tokens_tat_ns = m.tokens_tat_ns,
            tokens_limit = m.tokens_limit,
            tokens_returned_ns = m.tokens_returned_ns,
            in_flight = m.in_flight,
            month = m.month,
            held_nano_usd = m.held_nano_usd,
            month_nano_usd = m.month_nano_usd
        where scope = 'user' and subject_id = p_user_id;
        a.verdict := 'held';
    else
        -- nothing was charged, so nothing has to survive a crash, and the lock need not wait for the disk
        perform set_config('synchronous_commit', 'off', true);
        if exists (select from gateway.holds where request_id = p_request_id and attempt = p_attempt) then
            -- the answer of this very hold was lost on its way, and here it is again
            a.verdict := 'held';
            a.limit_name := null;
        elsif a.limit_name is null then
            a.verdict := 'duplicate';
        elsif a.retry_after_ms = 9000000000000 then
            a.verdict := 'too_large';
        else
            a.verdict := 'refused';
        end if;
    end if;

    a.requests_limit := l.requests_per_minute;
    a.requests_remaining := greatest(0, l.requests_per_minute - (m.requests_tat_ns - v_now_ns + v_request_ns - 1) / v_request_ns);
    a.requests_reset_ms := (m.requests_tat_ns - v_now_ns + 999999) / 1000000;
    a.tokens_limit := l.tokens_per_minute;
    a.tokens_remaining := greatest(0, l.tokens_per_minute - (m.tokens_tat_ns - v_now_ns + v_token_ns - 1) / v_token_ns);
    a.tokens_reset_ms := (m.tokens_tat_ns - v_now_ns + 999999) / 1000000;
    a.in_flight_limit := l.calls_in_flight;
    a.in_flight_remaining := greatest(0, l.calls_in_flight - m.in_flight);
    a.month_limit := l.nano_usd_per_month;
    a.month_remaining := greatest(0, l.nano_usd_per_month - m.month_nano_usd - m.held_nano_usd);
    a.month_reset_ms := v_month_reset_ms;
    return a;
end
$$;
comment on function gateway.hold_at(timestamptz, text, uuid, uuid, uuid, text, bigint, bigint, integer) is
    'gateway.hold with the clock as an argument (null: the database''s own), for tests. Granted to nobody.';

create function gateway.hold(
    p_request_id text,
    p_attempt uuid,
    p_user_id uuid,
    p_workspace_id uuid,
    p_model text,
    p_tokens bigint,
    p_cost_nano_usd bigint,
    p_lease_ms integer
)
returns gateway.hold_answer
language plpgsql
security definer
set search_path = ''
as $$
begin
    return gateway.hold_at(
        null, p_request_id, p_attempt, p_user_id, p_workspace_id, p_model, p_tokens, p_cost_nano_usd, p_lease_ms
    );
end
$$;
comment on function gateway.hold(text, uuid, uuid, uuid, text, bigint, bigint, integer) is
    'Every limit of the user is charged for the call, or none is. Asked again with the same request id and attempt it answers held again and charges nothing; with another attempt: duplicate.';

revoke all on function gateway.unit_ns(bigint) from public;
revoke all on function gateway.tat_under_limit(bigint, bigint, bigint, bigint) from public;
revoke all on function gateway.hold_at(timestamptz, text, uuid, uuid, uuid, text, bigint, bigint, integer) from public;
revoke all on function gateway.hold(text, uuid, uuid, uuid, text, bigint, bigint, integer) from public;
grant execute on function gateway.hold(text, uuid, uuid, uuid, text, bigint, bigint, integer) to gateway_service;
