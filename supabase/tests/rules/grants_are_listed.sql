-- Who may do what to which table and column besides its owner, as an exact list. Nobody may truncate, and nobody but
-- signed-in people has anything here: the gateway's login reaches its tables through functions.
with allowed (relation, columns, grantee, privilege) as (
    values
    ('api.members', '', 'authenticated', 'SELECT'),
    ('api.profiles', '', 'authenticated', 'SELECT'),
    ('api.profiles', 'display_name', 'authenticated', 'UPDATE'),
    ('api.workspaces', '', 'authenticated', 'SELECT'),
    ('api.workspaces', 'name', 'authenticated', 'UPDATE')
),
granted as (
    select class.oid::regclass::text as relation, '' as columns, coalesce(pg_roles.rolname, 'public') as grantee, acl.privilege_type as privilege
    from pg_catalog.pg_class as class
    cross join lateral aclexplode(class.relacl) as acl
    left join pg_catalog.pg_roles on pg_roles.oid = acl.grantee
    where class.relnamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace) and acl.grantee <> class.relowner
    union all
    select class.oid::regclass::text, attribute.attname, coalesce(pg_roles.rolname, 'public'), acl.privilege_type
    from pg_catalog.pg_class as class
    inner join pg_catalog.pg_attribute as attribute on attribute.attrelid = class.oid
    cross join lateral aclexplode(attribute.attacl) as acl
    left join pg_catalog.pg_roles on pg_roles.oid = acl.grantee
    where class.relnamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace) and acl.grantee <> class.relowner
)
select format(
    '%s %s on %s %s is %s',
    coalesce(granted.grantee, allowed.grantee), coalesce(granted.privilege, allowed.privilege),
    coalesce(granted.relation, allowed.relation), coalesce(granted.columns, allowed.columns),
    case when allowed.grantee is null then 'granted and not on the list' else 'on the list and not granted' end
) as fault
from allowed
full join granted using (relation, columns, grantee, privilege)
where allowed.grantee is null or granted.grantee is null;
