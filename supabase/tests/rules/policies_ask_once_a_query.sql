-- `(select auth.uid())` is run once a query, `auth.uid()` once a row; the same goes for our own functions.
select format('policy "%s" on %s.%s calls a function for each row: %s', policyname, schemaname, tablename, expression) as fault
from pg_catalog.pg_policies
cross join lateral (values (qual), (with_check)) as expressions (expression)
where schemaname in ('api', 'private', 'gateway', 'storage')
    and expression ~ '(?<!SELECT )\m(auth|private|gateway|api)\.[a-z_]+\(';
