-- Meters are made and locked before anything is decided, all those of a batch at once and always in one order.
create function gateway.lock_meters(p_request_ids text[], p_user_ids uuid[], p_key_ids uuid[], p_workspace_ids uuid[])
returns void
language plpgsql
set search_path = ''
as $$
begin
    -- New rows first, in order, and only then the locks on old ones: who waits here for somebody else's new row holds nothing but
    -- new rows of their own, which nobody who waits for old ones can see. So nobody waits in a circle.
    if cardinality(p_user_ids) > 0 then
        insert into gateway.meters (scope, subject_id)
        select named.scope, named.subject_id
        from (
            select 'user' as scope, unnest(p_user_ids) as subject_id
            union
            select 'key', unnest(p_key_ids)
            union
            select 'workspace', unnest(p_workspace_ids)
        ) as named
        where named.subject_id is not null
            and not exists (
                select from gateway.meters where meters.scope = named.scope and meters.subject_id = named.subject_id
            )
            and (named.scope <> 'user' or (select true from auth.users where users.id = named.subject_id))
        order by named.scope, named.subject_id
        on conflict do nothing;
    end if;

    -- Every scope times every id: an id that is used in two scopes locks a meter too many, which does no harm.
    perform from gateway.meters
    where scope = any ('{key,user,workspace}')
        and subject_id = any (p_user_ids || p_key_ids || p_workspace_ids || array(
            select unnest(array[user_id, key_id, workspace_id]) from gateway.holds where request_id = any (p_request_ids)
        ))
    order by scope, subject_id
    for no key update;
end
$$;
comment on function gateway.lock_meters(text[], uuid[], uuid[], uuid[]) is
    'The meters of these held calls and of these subjects (nulls are nobody) are locked until the transaction ends; those of subjects that were never named are made. Granted to nobody.';

revoke all on function gateway.lock_meters(text[], uuid[], uuid[], uuid[]) from public;

create function gateway.unit_ns(units_per_minute bigint)
returns bigint
language sql
immutable
set search_path = ''
return (60000000000 + greatest(units_per_minute, 1) - 1) / greatest(units_per_minute, 1);
comment on function gateway.unit_ns(bigint) is 'How long one unit of a rate takes to refill, in nanoseconds, rounded up. For reports: gateway.admit and gateway.finish spell it out, because PostgreSQL cannot inline a function that names its search path.';

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

revoke all on function gateway.unit_ns(bigint) from public;
revoke all on function gateway.tat_under_limit(bigint, bigint, bigint, bigint) from public;
