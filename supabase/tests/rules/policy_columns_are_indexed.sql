-- Each column of its own table that a policy asks about leads an index; without one, every query reads the whole table.
select distinct format('%s.%s is asked about by policy "%s", and no index begins with it', class.oid::regclass, attribute.attname, policy.polname) as fault
from pg_catalog.pg_policy as policy
inner join pg_catalog.pg_class as class on class.oid = policy.polrelid
inner join pg_catalog.pg_depend as depend
    on depend.classid = 'pg_policy'::regclass and depend.objid = policy.oid
    and depend.refclassid = 'pg_class'::regclass and depend.refobjid = policy.polrelid and depend.refobjsubid > 0
inner join pg_catalog.pg_attribute as attribute on attribute.attrelid = class.oid and attribute.attnum = depend.refobjsubid
where class.relnamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and not exists (
        select from pg_catalog.pg_index
        where pg_index.indrelid = class.oid and pg_index.indisvalid and pg_index.indpred is null and pg_index.indkey[0] = attribute.attnum
    );
