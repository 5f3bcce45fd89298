-- Every table of ours has row level security on, also where nobody but its owner has a grant: a grant given by mistake then
-- still shows nothing.
select format('%s has no row level security', class.oid::regclass) as fault
from pg_catalog.pg_class as class
where class.relnamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and class.relkind in ('r', 'p')
    and not class.relrowsecurity;
