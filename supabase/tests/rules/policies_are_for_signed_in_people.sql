-- A policy names `authenticated` and nobody else, and asks something: `true` would open the table to everybody signed in.
select format('policy "%s" on %s.%s is for %s: using %s, check %s', policyname, schemaname, tablename, roles, qual, with_check) as fault
from pg_catalog.pg_policies
where schemaname in ('api', 'private', 'gateway', 'storage')
    and (roles <> array['authenticated']::name[] or qual = 'true' or with_check = 'true');
