-- loses data: for how many days single calls are kept
do $$
declare
    v_table regclass;
begin
    -- what upkeep has made, and taken out of gateway.usage
    for v_table in
        select oid from pg_catalog.pg_class
        where relnamespace = 'gateway'::regnamespace and relkind = 'r' and relname ~ '^usage_[0-9]{8}$'
    loop
        execute format('drop table %s', v_table);
    end loop;
end
$$;
drop function gateway.upkeep();
drop function gateway.upkeep_at(timestamptz);
drop function gateway.add_up(regclass, timestamptz);
drop table gateway.bookkeeping;
