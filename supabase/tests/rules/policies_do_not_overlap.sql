-- One permissive policy for each table, action and role: several are joined by `or`, each is run, and their sum is hard to see.
select format('%s.%s has %s policies for %s', schemaname, tablename, count(*), cmd) as fault
from pg_catalog.pg_policies
where schemaname in ('api', 'private', 'gateway') and permissive = 'PERMISSIVE'
group by schemaname, tablename, cmd
having count(*) > 1
union all
select format('policy "%s" on %s.%s is for all actions', policyname, schemaname, tablename)
from pg_catalog.pg_policies
where schemaname in ('api', 'private', 'gateway') and cmd = 'ALL';
