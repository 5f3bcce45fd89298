-- The books by day. A partition of gateway.usage takes the calls settled on one day (UTC); when the day is over its sums go to
-- gateway.usage_daily and the partition leaves gateway.usage, both in one transaction, so that every call is counted in exactly one
-- of the two. A call that is settled later into a day that is gone (a clock was wrong) goes to gateway.usage_other, and from there
-- the same way: added to the sums, and moved.
create table gateway.bookkeeping (
    only_row boolean primary key default true
        constraint there_is_one_row check (only_row),
    usage_kept_days integer not null default 400
        constraint usage_is_kept_for_a_while check (usage_kept_days between 1 and 36500)
);
comment on table gateway.bookkeeping is 'How the books are kept: one row.';
comment on column gateway.bookkeeping.only_row is 'Always true.';
comment on column gateway.bookkeeping.usage_kept_days is 'Single calls older than this many days are dropped. The sums in gateway.usage_daily stay.';
alter table gateway.bookkeeping enable row level security;
insert into gateway.bookkeeping default values;

create function gateway.add_up(p_rows regclass, p_before timestamptz)
returns void
language plpgsql
set search_path = ''
as $$
begin
    execute format(
        $query$
        insert into gateway.usage_daily as sums
        select
            (settled_at at time zone 'UTC')::date, user_id, key_id, workspace_id, model, endpoint,
            count(*), count(*) filter (where estimated),
            sum(input_tokens), sum(cached_input_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens),
            sum(input_audio_tokens), sum(output_tokens), sum(reasoning_tokens), sum(output_audio_tokens), sum(images),
            sum(cost_nano_usd)
        from %s
        where state <> 'voided' and settled_at < $1
        group by 1, 2, 3, 4, 5, 6
        on conflict on constraint one_row_each do update set
            calls = sums.calls + excluded.calls,
            estimated_calls = sums.estimated_calls + excluded.estimated_calls,
            input_tokens = sums.input_tokens + excluded.input_tokens,
            cached_input_tokens = sums.cached_input_tokens + excluded.cached_input_tokens,
            cache_write_5m_tokens = sums.cache_write_5m_tokens + excluded.cache_write_5m_tokens,
            cache_write_1h_tokens = sums.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
            input_audio_tokens = sums.input_audio_tokens + excluded.input_audio_tokens,
            output_tokens = sums.output_tokens + excluded.output_tokens,
            reasoning_tokens = sums.reasoning_tokens + excluded.reasoning_tokens,
            output_audio_tokens = sums.output_audio_tokens + excluded.output_audio_tokens,
            images = sums.images + excluded.images,
            cost_nano_usd = sums.cost_nano_usd + excluded.cost_nano_usd
        $query$,
        p_rows
    ) using p_before;
end
$$;
comment on function gateway.add_up(regclass, timestamptz) is
    'The calls in the table that were settled before then are in the sums of their days. Granted to nobody.';

create function gateway.upkeep_at(p_now timestamptz)
returns text
language plpgsql
set search_path = ''
-- whoever waits for these locks keeps every settlement waiting: better to try again in an hour
set lock_timeout = '300ms'
as $$
declare
    c_lock constant bigint := 7032021112100307; -- any number that nobody else uses
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_today date := v_now at time zone 'UTC';
    -- a transaction that read the clock before midnight has long ended an hour later
    v_over date := (v_now - interval '1 hour') at time zone 'UTC';
    v_kept_from date := v_today - (select usage_kept_days from gateway.bookkeeping);
    v_day date;
    v_name text;
begin
    if not pg_try_advisory_xact_lock(c_lock) then
        return null;
    end if;

    -- 1. The next days have partitions: light locks, as the new table is made first and then attached.
    foreach v_day in array array[v_today, v_today + 1, v_today + 2] loop
        v_name := 'usage_' || to_char(v_day, 'YYYYMMDD');
        if to_regclass('gateway.' || v_name) is null and not exists (
            select from gateway.usage_other
            where settled_at >= v_day::timestamp at time zone 'UTC' and settled_at < (v_day + 1)::timestamp at time zone 'UTC'
        ) then
            execute format('create table gateway.%I (like gateway.usage including all)', v_name);
            execute format('comment on table gateway.%I is %L', v_name, 'The calls settled on ' || v_day || ' (UTC).');
            execute format('alter table gateway.%I enable row level security', v_name);
            execute format(
                'alter table gateway.usage attach partition gateway.%I for values from (%L) to (%L)',
                v_name, v_day::timestamp at time zone 'UTC', (v_day + 1)::timestamp at time zone 'UTC'
            );
            return 'added ' || v_name;
        end if;
    end loop;

    -- 2. Days that are over are added up, the oldest first, and leave gateway.usage. Nobody writes meanwhile what would be missed.
    select relname into v_name
    from pg_catalog.pg_inherits
    inner join pg_catalog.pg_class on pg_class.oid = inhrelid
    where inhparent = 'gateway.usage'::regclass and relname < 'usage_' || to_char(v_over, 'YYYYMMDD')
    order by relname
    limit 1;
    if v_name is not null then
        execute format('lock table gateway.%I in share mode', v_name);
        perform gateway.add_up(('gateway.' || v_name)::regclass, 'infinity');
        execute format('alter table gateway.usage detach partition gateway.%I', v_name);
        return 'added up ' || v_name;
    end if;
    if exists (select from gateway.usage_other where settled_at < v_over::timestamp at time zone 'UTC') then
        lock table gateway.usage_other in share row exclusive mode;
        perform gateway.add_up('gateway.usage_other', v_over::timestamp at time zone 'UTC');
        with moved as (
            delete from gateway.usage_other where settled_at < v_over::timestamp at time zone 'UTC' returning *
        )
        insert into gateway.usage_archive select * from moved;
        return 'added up usage_other';
    end if;

    -- 3. What has left gateway.usage joins the archive: by itself, as its rows are read to see that they belong there.
    select relname into v_name
    from pg_catalog.pg_class
    where relnamespace = 'gateway'::regnamespace and relkind = 'r' and not relispartition and relname ~ '^usage_[0-9]{8}$'
    order by relname
    limit 1;
    if v_name is not null then
        v_day := to_date(right(v_name, 8), 'YYYYMMDD');
        execute format(
            'alter table gateway.usage_archive attach partition gateway.%I for values from (%L) to (%L)',
            v_name, v_day::timestamp at time zone 'UTC', (v_day + 1)::timestamp at time zone 'UTC'
        );
        return 'archived ' || v_name;
    end if;

    -- 4. What is too old is dropped, a day at a time.
    select relname into v_name
    from pg_catalog.pg_inherits
    inner join pg_catalog.pg_class on pg_class.oid = inhrelid
    where inhparent = 'gateway.usage_archive'::regclass and relname < 'usage_' || to_char(v_kept_from, 'YYYYMMDD')
    order by relname
    limit 1;
    if v_name is not null then
        execute format('drop table gateway.%I', v_name);
        return 'dropped ' || v_name;
    end if;
    delete from gateway.usage_archive_other where settled_at < v_kept_from::timestamp at time zone 'UTC';
    return null;
end
$$;
comment on function gateway.upkeep_at(timestamptz) is
    'gateway.upkeep with the clock as an argument (null: the database''s own), for tests. Granted to nobody.';

create function gateway.upkeep()
returns text
language plpgsql
security definer
set search_path = ''
as $$
begin
    return gateway.upkeep_at(null);
end
$$;
comment on function gateway.upkeep() is
    'One step of keeping the books has been done, and this says which; null: nothing is left to do, or somebody else is at it. Call it again until it is null. A step can take as long as reading a day''s calls.';

revoke all on function gateway.add_up(regclass, timestamptz) from public;
revoke all on function gateway.upkeep_at(timestamptz) from public;
revoke all on function gateway.upkeep() from public;
grant execute on function gateway.upkeep() to gateway_service;
