-- Who may look into which schema of ours, as an exact list; nobody but the owner may create anything there.
with allowed (schema, grantee, privilege) as (
    values
    ('api', 'authenticated', 'USAGE'),
    ('private', 'authenticated', 'USAGE'),
    ('gateway', 'gateway_service', 'USAGE')
),
granted as (
    select namespace.nspname::text as schema, coalesce(pg_roles.rolname, 'public')::text as grantee, acl.privilege_type as privilege
    from pg_catalog.pg_namespace as namespace
    cross join lateral aclexplode(namespace.nspacl) as acl
    left join pg_catalog.pg_roles on pg_roles.oid = acl.grantee
    where namespace.nspname in ('api', 'private', 'gateway') and acl.grantee <> namespace.nspowner
)
select format('%s on schema %s for %s is %s', privilege, schema, grantee, case when allowed.schema is null then 'granted and not on the list' else 'on the list and not granted' end) as fault
from allowed
full join granted using (schema, grantee, privilege)
where allowed.schema is null or granted.schema is null;
