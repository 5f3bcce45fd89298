-- What was used, added up as the reader wants it, and read by the API as that reader: POST /rest/v1/rpc/usage_report
-- (Content-Profile: api). Days that are not added up yet are in gateway.usage, all others in gateway.usage_daily, and no call is in both.
create type api.usage_sums as (
    day date,
    user_id uuid,
    key_id uuid,
    model text,
    calls bigint,
    estimated_calls bigint,
    input_tokens bigint,
    cached_input_tokens bigint,
    cache_write_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    images bigint,
    cost_nano_usd bigint
);
comment on type api.usage_sums is
    'Sums of calls. input_tokens: of the prompt, all that were not read from a cache, those written to one (cache_write_tokens) among them. output_tokens: all that were made, reasoning_tokens among them. What was not grouped by is null.';

create function private.usage_sums(person uuid, workspace uuid, since date, until date)
returns setof api.usage_sums
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
    whose constant text := case
        when workspace is null then 'user_id = $1'
        when person is null then 'workspace_id = $2'
        else 'workspace_id = $2 and user_id = $1'
    end;
begin
    -- planned for these very values: whose decides on the index, and the days on the partitions
    return query execute format(
        $query$
        select
            day, user_id, key_id, model, sum(calls)::bigint, sum(estimated_calls)::bigint, sum(input_tokens)::bigint,
            sum(cached_input_tokens)::bigint, sum(cache_write_tokens)::bigint, sum(output_tokens)::bigint,
            sum(reasoning_tokens)::bigint, sum(images)::bigint, sum(cost_nano_usd)::bigint
        from (
            select
                (settled_at at time zone 'UTC')::date as day, user_id, key_id, model,
                1 as calls,
                estimated::integer as estimated_calls,
                input_tokens::bigint + cache_write_5m_tokens + cache_write_1h_tokens + input_audio_tokens as input_tokens,
                cached_input_tokens,
                cache_write_5m_tokens::bigint + cache_write_1h_tokens as cache_write_tokens,
                output_tokens::bigint + reasoning_tokens + output_audio_tokens as output_tokens,
                reasoning_tokens, images, cost_nano_usd
            from gateway.usage
            where %1$s and state <> 'voided'
                and settled_at >= $3::timestamp at time zone 'UTC' and settled_at < ($4 + 1)::timestamp at time zone 'UTC'
            union all
            select
                day, user_id, key_id, model, calls, estimated_calls,
                input_tokens + cache_write_5m_tokens + cache_write_1h_tokens + input_audio_tokens,
                cached_input_tokens,
                cache_write_5m_tokens + cache_write_1h_tokens,
                output_tokens + reasoning_tokens + output_audio_tokens,
                reasoning_tokens, images, cost_nano_usd
            from gateway.usage_daily
            where %1$s and day between $3 and $4
        ) as calls
        group by day, user_id, key_id, model
        $query$,
        whose
    ) using person, workspace, since, until;
end
$$;
comment on function private.usage_sums(uuid, uuid, date, date) is
    'Usage by day, person, key and model: of a person, of a workspace, or of a person in a workspace. Calls that never began (voided) are left out.';

create function private.usage_report(
    by text[],
    since date,
    until date,
    workspace uuid,
    page_size integer,
    after_row api.usage_sums
)
returns setof api.usage_sums
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
    caller uuid := (select auth.uid());
    person uuid := caller;
begin
    if not coalesce(by <@ array['day', 'user', 'key', 'model'], false) then
        perform private.refuse(400, 'invalid_parameter', 'Usage is grouped by day, user, key and model.');
    end if;
    if workspace is not null then
        if not workspace = any (array(select private.workspaces_of_caller())) then
            perform private.refuse(404, 'workspace_not_found', 'There is no workspace with this id.');
        end if;
        if private.administers(workspace, caller) then
            person := null; -- everybody
        end if;
    end if;

    return query
    select
        grouped.day, grouped.user_id, grouped.key_id, grouped.model, sum(grouped.calls)::bigint,
        sum(grouped.estimated_calls)::bigint, sum(grouped.input_tokens)::bigint, sum(grouped.cached_input_tokens)::bigint,
        sum(grouped.cache_write_tokens)::bigint, sum(grouped.output_tokens)::bigint, sum(grouped.reasoning_tokens)::bigint,
        sum(grouped.images)::bigint, sum(grouped.cost_nano_usd)::bigint
    from (
        select
            case when 'day' = any (by) then sums.day end as day,
            case when 'user' = any (by) then sums.user_id end as user_id,
            case when 'key' = any (by) then sums.key_id end as key_id,
            case when 'model' = any (by) then sums.model end collate "C" as model,
            sums.calls, sums.estimated_calls, sums.input_tokens, sums.cached_input_tokens, sums.cache_write_tokens,
            sums.output_tokens, sums.reasoning_tokens, sums.images, sums.cost_nano_usd
        from private.usage_sums(person, workspace, greatest(since, until - 366), until) as sums
    ) as grouped
    group by grouped.day, grouped.user_id, grouped.key_id, grouped.model
    having after_row is null
        or (
            -coalesce(grouped.day - date '2000-01-01', 0), coalesce(grouped.user_id::text, ''),
            coalesce(grouped.key_id::text, ''), coalesce(grouped.model, '')
        ) > (
            -coalesce((after_row).day - date '2000-01-01', 0), coalesce((after_row).user_id::text, ''),
            coalesce((after_row).key_id::text, ''), coalesce((after_row).model, '')
        )
    order by
        grouped.day desc, coalesce(grouped.user_id::text, ''), coalesce(grouped.key_id::text, ''), coalesce(grouped.model, '')
    limit least(greatest(page_size, 1), 101);
end
$$;
comment on function private.usage_report(text[], date, date, uuid, integer, api.usage_sums) is
    'The caller''s own usage, or a workspace''s: everybody''s for its owners and admins, one''s own for others. Of at most 367 days.';

create function api.usage_report(
    group_by text[] default array['day', 'model'],
    since date default null,
    until date default null,
    workspace_id uuid default null,
    page_size integer default 20,
    after jsonb default null
)
returns setof api.usage_sums
language sql
stable
set search_path = ''
as $$
    select * from private.usage_report(
        usage_report.group_by,
        coalesce(usage_report.since, (now() at time zone 'UTC')::date - 29),
        coalesce(usage_report.until, (now() at time zone 'UTC')::date),
        usage_report.workspace_id,
        coalesce(usage_report.page_size, 20),
        case when usage_report.after is not null then jsonb_populate_record(null::api.usage_sums, usage_report.after) end
    );
$$;
comment on function api.usage_report(text[], date, date, uuid, integer, jsonb) is
    'What was used on the UTC days since … until (inclusive; the last 30 days by default, at most 367), a row for each combination of what it is grouped by (day, user, key, model), newest day first, page_size (1 to 101) rows after the given one. Of the caller, or of a workspace: everybody''s for its owners and admins. Costs are nano-dollars (1e-9 USD).';

revoke all on function private.usage_sums(uuid, uuid, date, date) from public;
revoke all on function private.usage_report(text[], date, date, uuid, integer, api.usage_sums) from public;
revoke all on function api.usage_report(text[], date, date, uuid, integer, jsonb) from public;
grant execute on function private.usage_report(text[], date, date, uuid, integer, api.usage_sums) to authenticated;
grant execute on function api.usage_report(text[], date, date, uuid, integer, jsonb) to authenticated;
