-- Every function of ours names its search path (an empty one), so that nobody can slip a table of their own under it; and those
-- that run with their owner's rights stand in a schema PostgREST does not expose.
select format('%s does not set search_path to the empty string', proc.oid::regprocedure) as fault
from pg_catalog.pg_proc as proc
where proc.pronamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and not coalesce(proc.proconfig, '{}') @> array['search_path=""']
union all
select format('%s is security definer outside of private and gateway', proc.oid::regprocedure)
from pg_catalog.pg_proc as proc
where proc.prosecdef and proc.pronamespace in ('api'::regnamespace, 'public'::regnamespace);
