-- Every subject that ever called has a meter, and those that are gone need none: without this the table only grows.
alter table gateway.bookkeeping add column meters_forgotten_on date;
comment on column gateway.bookkeeping.meters_forgotten_on is 'On which day (UTC) gateway.forget_meters last looked through all meters; null: never.';

create function gateway.forget_meters_at(p_now timestamptz)
returns bigint
language plpgsql
set search_path = ''
as $$
declare
    v_today date := coalesce(p_now, clock_timestamp()) at time zone 'UTC';
    v_forgotten bigint;
begin
    if not exists (
        select from gateway.bookkeeping where meters_forgotten_on is distinct from v_today for update skip locked
    ) then
        return 0;
    end if;
    update gateway.bookkeeping set meters_forgotten_on = v_today;
    -- Whoever was seen in the month before this one may still have a call that ends, or be remembered by a gateway.
    with gone as (
        select meters.scope, meters.subject_id
        from gateway.meters as meters
        where meters.month < date_trunc('month', v_today)::date - interval '1 month'
            and meters.in_flight = 0
            and not exists (select from auth.users where meters.scope = 'user' and users.id = meters.subject_id)
            and not exists (select from gateway.api_keys where meters.scope = 'key' and api_keys.id = meters.subject_id)
            and not exists (select from api.workspaces where meters.scope = 'workspace' and workspaces.id = meters.subject_id)
        for update skip locked
    )
    delete from gateway.meters as meters
    using gone
    where meters.scope = gone.scope and meters.subject_id = gone.subject_id;
    get diagnostics v_forgotten = row_count;
    return v_forgotten;
end
$$;
comment on function gateway.forget_meters_at(timestamptz) is
    'gateway.forget_meters with the clock as an argument (null: the database''s own), for tests. Granted to nobody.';

create function gateway.forget_meters()
returns bigint
language plpgsql
security definer
set search_path = ''
as $$
begin
    return gateway.forget_meters_at(null);
end
$$;
comment on function gateway.forget_meters() is
    'How many meters have gone of users, keys and workspaces that do not exist any more and had no call since the month before this one began. Looks once a day, however often it is asked; what they spent stays in the books.';

revoke all on function gateway.forget_meters_at(timestamptz) from public;
revoke all on function gateway.forget_meters() from public;
grant execute on function gateway.forget_meters() to gateway_service;
