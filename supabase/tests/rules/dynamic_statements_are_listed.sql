-- Functions that put statements together at run time, as an exact list: each was read with injection in mind. Names come from the
-- catalogue (%I, regclass) and values go by `using`; nothing that a caller sends is ever part of a statement.
with allowed (signature) as (
    values
    ('gateway.add_up(regclass,timestamp with time zone)'),
    ('gateway.upkeep_at(timestamp with time zone)'),
    ('private.usage_sums(uuid,uuid,date,date)')
),
dynamic as (
    select proc.oid::regprocedure::text as signature
    from pg_catalog.pg_proc as proc
    where proc.pronamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
        and proc.prosrc ~* '\mexecute\M'
)
select coalesce(dynamic.signature || ' puts a statement together', allowed.signature || ' does not any more') as fault
from allowed
full join dynamic on dynamic.signature = allowed.signature
where allowed.signature is null or dynamic.signature is null;
