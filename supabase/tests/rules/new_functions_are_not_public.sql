-- Public does not get `execute` on functions made from now on by whoever made ours.
select format('functions made by %s from now on may be executed by everybody', owner.rolname) as fault
from pg_catalog.pg_roles as owner
where owner.oid = (select nspowner from pg_catalog.pg_namespace where nspname = 'api')
    and not exists (
        select from pg_catalog.pg_default_acl as defaults
        where defaults.defaclrole = owner.oid
            and defaults.defaclnamespace = 0
            and defaults.defaclobjtype = 'f'
            and not exists (select from aclexplode(defaults.defaclacl) as acl where acl.grantee = 0)
    );
