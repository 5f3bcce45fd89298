-- Tables, views, their columns, functions and policies say what they are for.
select format('%s has no comment', class.oid::regclass) as fault
from pg_catalog.pg_class as class
where class.relnamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and class.relkind in ('r', 'p', 'v', 'm') and obj_description(class.oid, 'pg_class') is null
union all
select format('%s.%s has no comment', class.oid::regclass, attribute.attname)
from pg_catalog.pg_class as class
inner join pg_catalog.pg_attribute as attribute on attribute.attrelid = class.oid
where class.relnamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and class.relkind in ('r', 'p') and not class.relispartition
    and attribute.attnum > 0 and not attribute.attisdropped and col_description(class.oid, attribute.attnum) is null
union all
select format('%s has no comment', proc.oid::regprocedure)
from pg_catalog.pg_proc as proc
where proc.pronamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and obj_description(proc.oid, 'pg_proc') is null
union all
select format('policy "%s" on %s has no comment', policy.polname, class.oid::regclass)
from pg_catalog.pg_policy as policy
inner join pg_catalog.pg_class as class on class.oid = policy.polrelid
where class.relnamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and obj_description(policy.oid, 'pg_policy') is null;
