-- Before a gateway says that it is ready it sees a call refused by each limit: by this function, which is all of gateway.post and
-- leaves nothing behind.
create function gateway.rehearse()
returns setof gateway.answer
language plpgsql
security definer
set search_path = ''
as $$
declare
    c_limits constant text[] :=
        '{requests_per_minute,tokens_per_minute,calls_in_flight,tokens_per_day,nano_usd_per_day,nano_usd_per_month}';
    c_allowed constant bigint[] := '{0,1,0,1,1,1}';
    v_none text[] := '{}';
    v_user_id uuid := (select users.id from auth.users limit 1);
    v_key_id uuid;
    v_answers gateway.answer[] := '{}';
begin
    if v_user_id is null then
        return;
    end if;
    -- What happens between this begin and its exception is undone, with the locks that it took; variables keep their values.
    begin
        -- the person is out of their own limits' way, so that it is the key's that are seen
        insert into gateway.limits (
            scope, subject_id, requests_per_minute, tokens_per_minute, calls_in_flight, tokens_per_day, nano_usd_per_day,
            nano_usd_per_month
        )
        values ('user', v_user_id, 1000000, 1000000000, 100000, 1000000000000, 1000000000000000, 1000000000000000)
        on conflict (scope, subject_id) do update set
            requests_per_minute = excluded.requests_per_minute,
            tokens_per_minute = excluded.tokens_per_minute,
            calls_in_flight = excluded.calls_in_flight,
            tokens_per_day = excluded.tokens_per_day,
            nano_usd_per_day = excluded.nano_usd_per_day,
            nano_usd_per_month = excluded.nano_usd_per_month;
        for i in 1 .. cardinality(c_limits) loop
            v_key_id := gen_random_uuid();
            insert into gateway.limits (
                scope, subject_id, requests_per_minute, tokens_per_minute, calls_in_flight, tokens_per_day, nano_usd_per_day,
                nano_usd_per_month
            )
            values (
                'key', v_key_id,
                case when i = 1 then c_allowed[i] end, case when i = 2 then c_allowed[i] end,
                case when i = 3 then c_allowed[i] end, case when i = 4 then c_allowed[i] end,
                case when i = 5 then c_allowed[i] end, case when i = 6 then c_allowed[i] end
            );
            v_answers[i] := (
                select answer
                from gateway.post(
                    v_none, v_none::uuid[], v_none, v_none, v_none::boolean[], v_none, v_none, v_none::integer[],
                    v_none::bigint[], array['rehearsal ' || v_key_id], array[gen_random_uuid()], array[v_user_id],
                    array[v_key_id], array[null::uuid], array['rehearsal'], array[2::bigint], array[2::bigint], array[1000]
                ) as answer
            );
        end loop;
        raise exception 'rehearsed' using errcode = 'BTR01';
    exception
        when sqlstate 'BTR01' then null;
    end;
    return query select answers.* from unnest(v_answers) as answers;
end
$$;
comment on function gateway.rehearse() is
    'How gateway.post answers six calls, each of which exceeds one limit of its key, in the order of gateway.plans: requests and tokens a minute, calls in flight, tokens and nano-dollars a day, nano-dollars a month. Whatever is answered is undone. Nothing while there is no user who could call.';

revoke all on function gateway.rehearse() from public;
grant execute on function gateway.rehearse() to gateway_service;
