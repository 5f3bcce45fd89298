-- A view runs with its owner's rights unless it says security_invoker, and would show everybody's rows.
select format('view %s is not security_invoker', class.oid::regclass) as fault
from pg_catalog.pg_class as class
where class.relnamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and (
        (class.relkind = 'v' and not coalesce(class.reloptions, '{}') && array['security_invoker=true', 'security_invoker=on'])
        or class.relkind = 'm'
    );
