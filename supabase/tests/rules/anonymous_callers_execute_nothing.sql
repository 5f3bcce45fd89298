-- The functions an anonymous caller may execute are none. (PostgreSQL's default is all of them.)
select format('%s may be executed by anon', proc.oid::regprocedure) as fault
from pg_catalog.pg_proc as proc
where proc.pronamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace, 'public'::regnamespace)
    and has_function_privilege('anon', proc.oid, 'execute');
