-- Behind every foreign key stands an index that begins with its columns: deleting what it refers to would read the whole table.
select format('%s on %s has no index behind it', constraints.conname, constraints.conrelid::regclass) as fault
from pg_catalog.pg_constraint as constraints
where constraints.contype = 'f'
    and constraints.connamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
    and not exists (
        select from pg_catalog.pg_index
        where pg_index.indrelid = constraints.conrelid
            and pg_index.indisvalid
            and pg_index.indpred is null
            and (pg_index.indkey::smallint[])[0:cardinality(constraints.conkey) - 1] @> constraints.conkey
    );
