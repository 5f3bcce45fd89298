-- What runs past row level security on a signed-in person's word, as an exact list: a new one is added here by somebody who
-- has read it with that in mind.
with allowed (signature) as (
    values
    ('private.change_llm_settings(uuid,jsonb)'),
    ('private.change_member_role(uuid,uuid,text)'),
    ('private.create_workspace(text)'),
    ('private.delete_workspace(uuid)'),
    ('private.fellows_of_caller()'),
    ('private.llm_settings(uuid)'),
    ('private.remove_member(uuid,uuid)'),
    ('private.stored_calls(uuid,integer,timestamp with time zone,uuid)'),
    ('private.usage_summary(date,date,integer,date,text)'),
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
