-- Holds: every limit of every subject of a call is charged, or none is; a batch of calls in the order they came.
--
-- The rates are GCRA: one timestamp a key, the "theoretical arrival time" (tat) at which all of the limit is there again. A unit
-- moves it on by 60 s / limit (rounded up to whole nanoseconds: never faster than the limit); a call fits when the tat is then
-- no further ahead than `limit` units. So `limit` units fit at once, and the wait of a refused call is exact.
create type gateway.answer as (
    verdict text,
    scope text,
    limit_name text,
    retry_after_ms bigint,
    state_limit bigint,
    state_remaining bigint,
    state_reset_ms bigint,
    requests_limit bigint,
    requests_remaining bigint,
    requests_reset_ms bigint,
    tokens_limit bigint,
    tokens_remaining bigint,
    tokens_reset_ms bigint
);
comment on type gateway.answer is
    'verdict: held, refused (fits after retry_after_ms), too_large (never fits), duplicate, unknown_user, lost; or the state of a finished call. scope, limit_name and state_*: what stood in the way, and how it stands. Then the tightest requests and tokens per minute of all scopes, null without a limit.';

create type gateway.subject as (
    scope text,
    subject_id uuid,
    exists_still boolean,
    has_plan boolean,
    r_limit bigint,
    r_unit_ns bigint,
    r_tat_ns bigint,
    r_room bigint,
    t_limit bigint,
    t_unit_ns bigint,
    t_tat_ns bigint,
    t_returned_ns bigint,
    t_room bigint,
    f_limit bigint,
    in_flight bigint,
    td_limit bigint,
    nd_limit bigint,
    nm_limit bigint,
    td_used bigint,
    nd_used bigint,
    nm_used bigint,
    held_tokens bigint,
    held_nano_usd bigint
);
comment on type gateway.subject is
    'How a subject stands at one moment: limits in force (null: none), GCRA unit and tat under them, how many units fit; calls in flight; what is used of today and of this month, and held. r: requests, t: tokens, f: in flight, td: tokens a day, nd and nm: nano-dollars a day and a month.';

create function gateway.subjects(p_now timestamptz, p_user_ids uuid[], p_key_ids uuid[], p_workspace_ids uuid[])
returns gateway.subject[]
language plpgsql
set search_path = ''
as $$
declare
    v_now_ns bigint := (extract(epoch from p_now) * 1000000)::bigint * 1000;
    v_today date := p_now at time zone 'UTC';
    v_month date := date_trunc('month', p_now at time zone 'UTC');
    v_standings gateway.subject[];
begin
    with limited as materialized (
        select
            m.*,
            -- as a value: of an `exists` the planner may make a hash table of all users
            m.scope <> 'user' or (select true from auth.users where users.id = m.subject_id) is not null as exists_still,
            m.scope <> 'user' or plans.name is not null as has_plan,
            coalesce(own.requests_per_minute, plans.requests_per_minute)::bigint as r_limit,
            coalesce(own.tokens_per_minute, plans.tokens_per_minute) as t_limit,
            coalesce(own.calls_in_flight, plans.calls_in_flight)::bigint as f_limit,
            coalesce(own.tokens_per_day, plans.tokens_per_day) as td_limit,
            coalesce(own.nano_usd_per_day, plans.nano_usd_per_day) as nd_limit,
            coalesce(own.nano_usd_per_month, plans.nano_usd_per_month) as nm_limit
        from gateway.meters as m
        left join gateway.limits as own on own.scope = m.scope and own.subject_id = m.subject_id
        left join gateway.plans
            on case when own.plan is null then m.scope = 'user' and plans.is_default else plans.name = own.plan end
        where m.scope = any ('{key,user,workspace}') and m.subject_id = any (p_user_ids || p_key_ids || p_workspace_ids)
    ),
    rated as materialized (
        select
            limited.*,
            (60000000000 + greatest(r_limit, 1) - 1) / greatest(r_limit, 1) as r_unit_ns,
            (60000000000 + greatest(t_limit, 1) - 1) / greatest(t_limit, 1) as t_unit_ns,
            -- under an edited limit as many units count as used as before; at most until the year 2223
            case
                when requests_tat_ns <= v_now_ns then v_now_ns
                when requests_limit = r_limit then requests_tat_ns
                else least(v_now_ns + ceil(
                    (requests_tat_ns - v_now_ns)::numeric
                    * ((60000000000 + greatest(r_limit, 1) - 1) / greatest(r_limit, 1))
                    / ((60000000000 + greatest(requests_limit, 1) - 1) / greatest(requests_limit, 1))
                ), 8000000000000000000)::bigint
            end as r_tat_ns,
            case
                when tokens_tat_ns <= v_now_ns then v_now_ns
                when tokens_limit = t_limit then tokens_tat_ns
                else least(v_now_ns + ceil(
                    (tokens_tat_ns - v_now_ns)::numeric
                    * ((60000000000 + greatest(t_limit, 1) - 1) / greatest(t_limit, 1))
                    / ((60000000000 + greatest(tokens_limit, 1) - 1) / greatest(tokens_limit, 1))
                ), 8000000000000000000)::bigint
            end as t_tat_ns,
            -- what calls in flight held under another limit is not given back under this one
            tokens_returned_ns + case
                when tokens_tat_ns > v_now_ns and tokens_limit <> t_limit then tokens_tat_ns - v_now_ns else 0
            end as t_returned_ns
        from limited
    )
    select array_agg(
        row(
            scope, subject_id, exists_still, has_plan,
            r_limit, r_unit_ns, r_tat_ns, r_limit - (r_tat_ns - v_now_ns + r_unit_ns - 1) / r_unit_ns,
            t_limit, t_unit_ns, t_tat_ns, t_returned_ns, t_limit - (t_tat_ns - v_now_ns + t_unit_ns - 1) / t_unit_ns,
            f_limit, in_flight, td_limit, nd_limit, nm_limit,
            case when day < v_today then 0 else day_tokens end,
            case when day < v_today then 0 else day_nano_usd end,
            case when month < v_month then 0 else month_nano_usd end,
            held_tokens, held_nano_usd
        )::gateway.subject
        order by scope, subject_id
    ) into v_standings
    from rated;
    return coalesce(v_standings, '{}');
end
$$;
comment on function gateway.subjects(timestamptz, uuid[], uuid[], uuid[]) is
    'How these subjects (nulls are nobody) stand, those that have a meter, by scope and id. Granted to nobody.';

create function gateway.refusal(
    p_now timestamptz,
    p_subjects gateway.subject[],
    p_mine integer[],
    p_calls bigint[],
    p_tokens bigint[],
    p_nano_usd bigint[],
    p_more_calls integer,
    p_more_tokens bigint,
    p_more_nano_usd bigint,
    p_all_tokens bigint,
    p_all_nano_usd bigint
)
returns gateway.answer
language plpgsql
set search_path = ''
as $$
declare
    v_now_ns bigint := (extract(epoch from p_now) * 1000000)::bigint * 1000;
    v_day_ms bigint := ceil(extract(epoch from (date_trunc('day', p_now at time zone 'UTC') + interval '1 day')
                                               - p_now at time zone 'UTC') * 1000);
    v_month_ms bigint := ceil(extract(epoch from (date_trunc('month', p_now at time zone 'UTC') + interval '1 month')
                                                 - p_now at time zone 'UTC') * 1000);
    c_never_ms constant bigint := 9000000000000;
    v_answer gateway.answer;
begin
    select
        case when limits.wait_ms = c_never_ms then 'too_large' else 'refused' end,
        s.scope, limits.name, limits.wait_ms, limits.most, greatest(limits.remaining, 0), limits.reset_ms
    into
        v_answer.verdict, v_answer.scope, v_answer.limit_name, v_answer.retry_after_ms,
        v_answer.state_limit, v_answer.state_remaining, v_answer.state_reset_ms
    from unnest(p_mine) with ordinality as mine (i, place)
    cross join lateral (select p_subjects[mine.i] as standing) as its
    cross join lateral (select (its.standing).*) as s
    cross join lateral (
        select p_calls[mine.i] as calls, p_tokens[mine.i] as tokens, p_nano_usd[mine.i] as nano_usd
    ) as so_far
    cross join lateral (
        select
            s.r_tat_ns + so_far.calls * s.r_unit_ns - v_now_ns as r_ahead_ns,
            case when s.t_limit is null then 0 else s.t_tat_ns + so_far.tokens * s.t_unit_ns - v_now_ns end as t_ahead_ns,
            s.held_tokens + so_far.tokens as held_tokens,
            s.held_nano_usd + so_far.nano_usd as held_nano_usd
    ) as at
    cross join lateral (
        values
            (
                1, 'requests_per_minute', s.r_limit, s.r_room - so_far.calls, (at.r_ahead_ns + 999999) / 1000000,
                case
                    when p_more_calls = 0 then 0
                    when s.r_limit = 0 then c_never_ms
                    else (at.r_ahead_ns + (1 - s.r_limit) * s.r_unit_ns + 999999) / 1000000
                end
            ),
            (
                2, 'tokens_per_minute', s.t_limit, s.t_room - so_far.tokens, (at.t_ahead_ns + 999999) / 1000000,
                case
                    when p_more_calls = 0 and p_more_tokens <= 0 then 0
                    when p_all_tokens > s.t_limit then c_never_ms
                    else (at.t_ahead_ns + (p_more_tokens - s.t_limit) * s.t_unit_ns + 999999) / 1000000
                end
            ),
            (
                3, 'calls_in_flight', s.f_limit, s.f_limit - s.in_flight - so_far.calls, 0,
                case
                    when p_more_calls = 0 then 0
                    when s.f_limit = 0 then c_never_ms
                    when s.in_flight + so_far.calls >= s.f_limit then 1000
                    else 0
                end
            ),
            (
                4, 'tokens_per_day', s.td_limit, s.td_limit - s.td_used - at.held_tokens, v_day_ms,
                case
                    when p_more_tokens <= 0 or s.td_used + at.held_tokens + p_more_tokens <= s.td_limit then 0
                    when p_all_tokens > s.td_limit then c_never_ms
                    when s.td_used + p_all_tokens <= s.td_limit then 1000
                    else v_day_ms
                end
            ),
            (
                5, 'nano_usd_per_day', s.nd_limit, s.nd_limit - s.nd_used - at.held_nano_usd, v_day_ms,
                case
                    when p_more_nano_usd <= 0 or s.nd_used + at.held_nano_usd + p_more_nano_usd <= s.nd_limit then 0
                    when p_all_nano_usd > s.nd_limit then c_never_ms
                    when s.nd_used + p_all_nano_usd <= s.nd_limit then 1000
                    else v_day_ms
                end
            ),
            (
                6, 'nano_usd_per_month', s.nm_limit, s.nm_limit - s.nm_used - at.held_nano_usd, v_month_ms,
                case
                    when p_more_nano_usd <= 0 or s.nm_used + at.held_nano_usd + p_more_nano_usd <= s.nm_limit then 0
                    when p_all_nano_usd > s.nm_limit then c_never_ms
                    when s.nm_used + p_all_nano_usd <= s.nm_limit then 1000
                    else v_month_ms
                end
            )
    ) as limits (place, name, most, remaining, reset_ms, wait_ms)
    where limits.most is not null and limits.wait_ms > 0
    order by limits.wait_ms desc, mine.place, limits.place
    limit 1;
    return v_answer;
end
$$;
comment on function gateway.refusal(timestamptz, gateway.subject[], integer[], bigint[], bigint[], bigint[], integer, bigint, bigint, bigint, bigint) is
    'Which limit stands in the way longest of so much more (calls, tokens, nano-dollars) by a call of so much in all, when its subjects (p_mine: their places) have been charged so much since they stood so; verdict null when none does. Of equal ones the first subject''s, then the first limit. Granted to nobody.';

create function gateway.admit(
    p_now timestamptz,
    p_request_ids text[],
    p_attempts uuid[],
    p_user_ids uuid[],
    p_key_ids uuid[],
    p_workspace_ids uuid[],
    p_models text[],
    p_tokens bigint[],
    p_costs bigint[],
    p_lease_ms integer[],
    p_alone boolean
)
returns setof gateway.answer
language plpgsql
set search_path = ''
as $$
declare
    c_no_limit constant bigint := 4000000000000000000;
    v_now_ns bigint := (extract(epoch from p_now) * 1000000)::bigint * 1000;
    v_subjects gateway.subject[] := gateway.subjects(p_now, p_user_ids, p_key_ids, p_workspace_ids);
    s gateway.subject;
    -- of each subject: what fits, and what the batch has charged so far
    v_ids uuid[] := '{}';
    v_first_user integer := 1;
    v_first_workspace integer := 1;
    v_exists boolean[] := '{}';
    v_calls_room bigint[] := '{}';
    v_tokens_room bigint[] := '{}';
    v_day_room bigint[] := '{}';
    v_money_room bigint[] := '{}';
    v_tokens_unit_ns bigint[] := '{}';
    v_tokens_end_ns bigint[] := '{}';
    v_nothing bigint[];
    v_calls bigint[];
    v_tokens bigint[];
    v_nano_usd bigint[];
    -- of each call
    v_taken boolean[] := array_fill(false, array[cardinality(p_request_ids)]);
    v_answers gateway.answer[];
    v_admitted integer[];
    v_user_end_ns bigint[];
    v_key_end_ns bigint[];
    v_workspace_end_ns bigint[];
    v_mine integer[];
    v_user integer;
    v_key integer;
    v_workspace integer;
    v_fits boolean;
    v_more_tokens bigint;
    v_more_nano_usd bigint;
    v_last integer := 0;
    v_inserted uuid[];
    a gateway.answer;
    i integer;
    v_again boolean;
begin
    foreach s in array v_subjects loop
        if not s.has_plan then
            raise exception 'gateway.plans has no default plan' using errcode = 'object_not_in_prerequisite_state';
        end if;
        v_last := v_last + 1;
        v_ids[v_last] := s.subject_id;
        -- by scope, in the order of the alphabet
        if s.scope = 'key' then
            v_first_user := v_last + 1;
        end if;
        if s.scope <> 'workspace' then
            v_first_workspace := v_last + 1;
        end if;
        v_exists[v_last] := s.exists_still;
        v_calls_room[v_last] := least(coalesce(s.r_room, c_no_limit), coalesce(s.f_limit - s.in_flight, c_no_limit));
        v_tokens_room[v_last] := coalesce(s.t_room, c_no_limit);
        v_day_room[v_last] := coalesce(s.td_limit - s.td_used - s.held_tokens, c_no_limit);
        v_money_room[v_last] := least(
            coalesce(s.nd_limit - s.nd_used - s.held_nano_usd, c_no_limit),
            coalesce(s.nm_limit - s.nm_used - s.held_nano_usd, c_no_limit)
        );
        v_tokens_unit_ns[v_last] := case when s.t_limit is null then 0 else s.t_unit_ns end;
        v_tokens_end_ns[v_last] := case when s.t_limit is null then 0 else s.t_tat_ns + s.t_returned_ns end;
    end loop;
    v_nothing := array_fill(0::bigint, array[v_last]);

    -- Again only when it turns out that a request id is taken: then the others are decided as if that call had not been there.
    loop
        v_calls := v_nothing;
        v_tokens := v_nothing;
        v_nano_usd := v_nothing;
        v_answers := '{}';
        v_admitted := '{}';
        v_user_end_ns := '{}';
        v_key_end_ns := '{}';
        v_workspace_end_ns := '{}';
        for n in 1 .. cardinality(p_request_ids) loop
            a := null;
            v_user := array_position(v_ids, p_user_ids[n], v_first_user);
            if v_user is null or not v_exists[v_user] then
                a.verdict := 'unknown_user';
                v_answers[n] := a;
                continue;
            end if;
            v_mine := array[v_user];
            if p_key_ids[n] is not null then
                v_key := array_position(v_ids, p_key_ids[n]);
                v_mine := v_mine || v_key;
            end if;
            if p_workspace_ids[n] is not null then
                v_workspace := array_position(v_ids, p_workspace_ids[n], v_first_workspace);
                v_mine := v_mine || v_workspace;
            end if;

            v_more_tokens := p_tokens[n];
            v_more_nano_usd := p_costs[n];
            v_fits := not v_taken[n];
            foreach i in array v_mine loop
                exit when not v_fits;
                v_fits := v_calls[i] < v_calls_room[i]
                    and v_tokens[i] + v_more_tokens <= v_tokens_room[i]
                    and (v_more_tokens = 0 or v_tokens[i] + v_more_tokens <= v_day_room[i])
                    and (v_more_nano_usd = 0 or v_nano_usd[i] + v_more_nano_usd <= v_money_room[i]);
            end loop;

            if v_fits then
                foreach i in array v_mine loop
                    v_calls[i] := v_calls[i] + 1;
                    v_tokens[i] := v_tokens[i] + v_more_tokens;
                    v_nano_usd[i] := v_nano_usd[i] + v_more_nano_usd;
                end loop;
                v_admitted := v_admitted || n;
                v_user_end_ns[n] := v_tokens_end_ns[v_user] + v_tokens[v_user] * v_tokens_unit_ns[v_user];
                v_key_end_ns[n] := case when p_key_ids[n] is null then 0
                    else v_tokens_end_ns[v_key] + v_tokens[v_key] * v_tokens_unit_ns[v_key] end;
                v_workspace_end_ns[n] := case when p_workspace_ids[n] is null then 0
                    else v_tokens_end_ns[v_workspace] + v_tokens[v_workspace] * v_tokens_unit_ns[v_workspace] end;
                a.verdict := 'held';
            elsif exists (
                select from gateway.holds where request_id = p_request_ids[n] and attempt = p_attempts[n]
            ) then
                -- the answer of this very hold was lost on its way, and here it is again
                a.verdict := 'held';
            elsif v_taken[n] then
                a.verdict := 'duplicate';
            else
                a := gateway.refusal(
                    p_now, v_subjects, v_mine, v_calls, v_tokens, v_nano_usd,
                    1, v_more_tokens, v_more_nano_usd, v_more_tokens, v_more_nano_usd
                );
            end if;

            foreach i in array v_mine loop
                s := v_subjects[i];
                if s.r_limit is not null and (a.requests_limit is null or greatest(s.r_room - v_calls[i], 0) < a.requests_remaining) then
                    a.requests_limit := s.r_limit;
                    a.requests_remaining := greatest(s.r_room - v_calls[i], 0);
                    a.requests_reset_ms := (s.r_tat_ns + v_calls[i] * s.r_unit_ns - v_now_ns + 999999) / 1000000;
                end if;
                if s.t_limit is not null and (a.tokens_limit is null or greatest(s.t_room - v_tokens[i], 0) < a.tokens_remaining) then
                    a.tokens_limit := s.t_limit;
                    a.tokens_remaining := greatest(s.t_room - v_tokens[i], 0);
                    a.tokens_reset_ms := (s.t_tat_ns + v_tokens[i] * s.t_unit_ns - v_now_ns + 999999) / 1000000;
                end if;
            end loop;
            v_answers[n] := a;
        end loop;

        exit when cardinality(v_admitted) = 0;
        with inserted as (
            insert into gateway.holds (
                request_id, attempt, user_id, key_id, workspace_id, model, tokens,
                user_tokens_end_ns, key_tokens_end_ns, workspace_tokens_end_ns, cost_nano_usd, held_at, lease_expires_at
            )
            select
                p_request_ids[n], p_attempts[n], p_user_ids[n], p_key_ids[n], p_workspace_ids[n], p_models[n], p_tokens[n],
                v_user_end_ns[n], v_key_end_ns[n], v_workspace_end_ns[n], p_costs[n],
                p_now, p_now + p_lease_ms[n] * interval '1 millisecond'
            from unnest(v_admitted) as n
            on conflict do nothing
            returning attempt
        )
        select array_agg(attempt) into v_inserted from inserted;
        -- asked after the insert, which waits for a call with the same id that is being finished at this moment
        exit when cardinality(v_inserted) = cardinality(v_admitted)
            and not exists (select from gateway.usage where request_id = any (p_request_ids));
        v_again := false;
        foreach i in array v_admitted loop
            v_taken[i] := not coalesce(p_attempts[i] = any (v_inserted), false)
                or exists (select from gateway.usage where request_id = p_request_ids[i])
                or i > (select min(n) from unnest(v_admitted) as n where p_attempts[n] = p_attempts[i]);
            v_again := v_again or v_taken[i];
        end loop;
        exit when not v_again; -- only calls that were refused, or are decided again, have ids that are taken
        delete from gateway.holds where request_id = any (p_request_ids) and attempt = any (v_inserted);
    end loop;

    if cardinality(v_admitted) > 0 then
        update gateway.meters as meter set
            requests_tat_ns = case
                when charge.r_limit is null then meter.requests_tat_ns else charge.r_tat_ns + charge.new_calls * charge.r_unit_ns
            end,
            requests_limit = coalesce(charge.r_limit, meter.requests_limit),
            tokens_tat_ns = case
                when charge.t_limit is null then meter.tokens_tat_ns else charge.t_tat_ns + charge.new_tokens * charge.t_unit_ns
            end,
            tokens_limit = coalesce(charge.t_limit, meter.tokens_limit),
            tokens_returned_ns = charge.t_returned_ns,
            in_flight = meter.in_flight + charge.new_calls,
            held_tokens = meter.held_tokens + charge.new_tokens,
            held_nano_usd = meter.held_nano_usd + charge.new_nano_usd
        from unnest(v_subjects, v_calls, v_tokens, v_nano_usd) as charge (
            scope, subject_id, exists_still, has_plan, r_limit, r_unit_ns, r_tat_ns, r_room, t_limit, t_unit_ns, t_tat_ns,
            t_returned_ns, t_room, f_limit, in_flight, td_limit, nd_limit, nm_limit, td_used, nd_used, nm_used,
            held_tokens, held_nano_usd, new_calls, new_tokens, new_nano_usd
        )
        where charge.new_calls > 0 and meter.scope = charge.scope and meter.subject_id = charge.subject_id;
    elsif p_alone then
        -- nothing was charged, so nothing has to survive a crash, and the locks need not wait for the disk
        perform set_config('synchronous_commit', 'off', true);
    end if;
    return query select * from unnest(v_answers);
end
$$;
comment on function gateway.admit(timestamptz, text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[], boolean) is
    'Each call has charged all limits of its user, key and workspace (null: none), whose meters must be locked, or none; an answer for each, in order. Asked again with the same request id and attempt it answers held again and charges nothing; with another attempt: duplicate. p_alone: nothing else happens in the transaction. Granted to nobody.';

revoke all on function gateway.subjects(timestamptz, uuid[], uuid[], uuid[]) from public;
revoke all on function gateway.refusal(timestamptz, gateway.subject[], integer[], bigint[], bigint[], bigint[], integer, bigint, bigint, bigint, bigint) from public;
revoke all on function gateway.admit(timestamptz, text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[], boolean) from public;
