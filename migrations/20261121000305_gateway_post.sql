-- What the gateway's login calls: a batch of finished calls and of new ones in one transaction, and what keeps a call alive.
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
    if cardinality(p_done_ids) > 0 then
        return query
        select done.state, null, null, null::bigint, null::bigint, null::bigint, null::bigint,
            null::bigint, null::bigint, null::bigint, null::bigint, null::bigint, null::bigint
        from unnest(gateway.finish(
            v_now, p_done_ids, p_done_attempts, p_done_states, p_done_outcomes, p_done_estimated, p_done_endpoints,
            p_done_deployments, p_done_counts, p_done_costs
        )) as done (state);
    end if;
    if cardinality(p_request_ids) > 0 then
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
