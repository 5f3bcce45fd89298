-- What runs past row level security on a signed-in person's word, as an exact list: a new one is added here by somebody who
-- has read it with that in mind.
with allowed (signature) as (
    values
    ('private.change_llm_settings(uuid,jsonb)'),
    ('private.change_member_role(uuid,uuid,text)'),
    ('private.create_api_key(text,text,text,uuid,text[],text[],timestamp with time zone,jsonb)'),
    ('private.create_workspace(text)'),
    ('private.delete_workspace(uuid)'),
    ('private.fellows_of_caller()'),
    ('private.limit_report(uuid,uuid)'),
    ('private.list_api_keys(uuid,uuid,integer,timestamp with time zone,uuid)'),
    ('private.llm_settings(uuid)'),
    ('private.remove_member(uuid,uuid)'),
    ('private.revoke_api_key(uuid)'),
    ('private.rotate_api_key(uuid,text,text,integer)'),
    ('private.stored_calls(uuid,integer,timestamp with time zone,uuid)'),
    ('private.update_api_key(uuid,text,jsonb)'),
    ('private.usage_report(text[],date,date,uuid,integer,api.usage_sums)'),
    ('private.workspaces_of_caller(text[])')
),
executable as (
    select proc.oid::regprocedure::text as signature
    from pg_catalog.pg_proc as proc
    where proc.prosecdef
        and proc.pronamespace in ('api'::regnamespace, 'private'::regnamespace, 'gateway'::regnamespace)
        and has_function_privilege('authenticated', proc.oid, 'execute')
)
select case
    when allowed.signature is null then format('%s is security definer, and authenticated may execute it', executable.signature)
    else format('%s is gone, or authenticated may not execute it', allowed.signature)
end as fault
from allowed
full join executable on executable.signature = allowed.signature
where allowed.signature is null or executable.signature is null;
