-- The operations on workspaces that touch several rows or need a rule that a policy cannot keep: one function, one transaction.
-- The functions of api run as the caller and only pass on; those of private do the work, past row level security.
-- Each one that changes who may do what locks the workspace's row first, so that two owners who demote each other take turns.
create function private.lock_workspace_as_caller(workspace uuid, caller uuid)
returns text
language plpgsql
security definer
set search_path = ''
as $$
declare
    role_of_caller text;
begin
    perform from api.workspaces where id = workspace for no key update;

    select members.role into role_of_caller
    from api.members
    where members.workspace_id = workspace and members.user_id = caller;

    if role_of_caller is null then
        -- the same answer whether it does not exist or is none of their business
        perform private.refuse(404, 'workspace_not_found', 'There is no workspace with this id.');
    end if;
    return role_of_caller;
end
$$;
comment on function private.lock_workspace_as_caller(uuid, uuid) is
    'The caller''s role in the workspace, which nobody else can change before this transaction ends. Refuses with workspace_not_found.';

create function private.refuse_to_lose_owner(workspace uuid, person uuid)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
    if exists (select from api.workspaces where id = workspace and is_personal and created_by = person) then
        perform private.refuse(409, 'personal_workspace', 'A personal workspace always belongs to its person.');
    end if;

    if not exists (
        select from api.members
        where members.workspace_id = workspace and members.role = 'owner' and members.user_id <> person
    ) then
        perform private.refuse(409, 'last_owner', 'A workspace needs an owner. Make another member its owner first.');
    end if;
end
$$;
comment on function private.refuse_to_lose_owner(uuid, uuid) is
    'The workspace has another owner than this person, and is not their personal one. Refuses with personal_workspace or last_owner (409).';

create function private.lock_member(workspace uuid, person uuid)
returns text
language plpgsql
security definer
set search_path = ''
as $$
declare
    role_of_person text;
begin
    select members.role into role_of_person
    from api.members
    where members.workspace_id = workspace and members.user_id = person
    for update;

    if role_of_person is null then
        perform private.refuse(404, 'member_not_found', 'There is no such member in this workspace.');
    end if;
    return role_of_person;
end
$$;
comment on function private.lock_member(uuid, uuid) is 'The person''s role in the workspace, locked. Refuses with member_not_found (404).';

create function private.create_workspace(workspace_name text)
returns api.workspaces
language plpgsql
security definer
set search_path = ''
as $$
declare
    caller uuid := private.live_caller();
    made api.workspaces;
begin
    insert into api.workspaces (name, created_by)
    values (workspace_name, caller)
    returning * into made;

    insert into api.members (workspace_id, user_id, role)
    values (made.id, caller, 'owner');
    return made;
end
$$;
comment on function private.create_workspace(text) is 'A new workspace owned by the caller.';

create function private.delete_workspace(workspace uuid)
returns void
language plpgsql
security definer
set search_path = ''
as $$
declare
    caller uuid := private.live_caller();
begin
    if private.lock_workspace_as_caller(workspace, caller) <> 'owner' then
        perform private.refuse(403, 'not_allowed', 'Only an owner can delete a workspace.');
    end if;

    if exists (select from api.workspaces where id = workspace and is_personal) then
        perform private.refuse(409, 'personal_workspace', 'A personal workspace cannot be deleted.');
    end if;

    delete from api.workspaces where id = workspace;
end
$$;
comment on function private.delete_workspace(uuid) is 'The workspace and everything in it is gone. Owners only; never a personal workspace.';

create function private.change_member_role(workspace uuid, person uuid, new_role text)
returns api.members
language plpgsql
security definer
set search_path = ''
as $$
declare
    caller uuid := private.live_caller();
    role_of_caller text := private.lock_workspace_as_caller(workspace, caller);
    role_of_person text;
    changed api.members;
begin
    if role_of_caller not in ('owner', 'admin') then
        perform private.refuse(403, 'not_allowed', 'Only owners and admins can change roles.');
    end if;

    role_of_person := private.lock_member(workspace, person);

    if role_of_caller = 'admin' and 'owner' in (role_of_person, new_role) then
        perform private.refuse(403, 'not_allowed', 'Only an owner can make an owner or change one.');
    end if;

    if role_of_person = 'owner' and new_role <> 'owner' then
        perform private.refuse_to_lose_owner(workspace, person);
    end if;

    update api.members
    set role = new_role
    where members.workspace_id = workspace and members.user_id = person
    returning * into changed;
    return changed;
end
$$;
comment on function private.change_member_role(uuid, uuid, text) is
    'The person has the new role. Owners change everybody, admins all but owners; there is always an owner.';

create function private.remove_member(workspace uuid, person uuid)
returns void
language plpgsql
security definer
set search_path = ''
as $$
declare
    caller uuid := private.live_caller();
    role_of_caller text := private.lock_workspace_as_caller(workspace, caller);
    role_of_person text;
begin
    if person <> caller and role_of_caller not in ('owner', 'admin') then
        perform private.refuse(403, 'not_allowed', 'Only owners and admins can remove others.');
    end if;

    role_of_person := private.lock_member(workspace, person);

    if role_of_person = 'owner' then
        if role_of_caller <> 'owner' then
            perform private.refuse(403, 'not_allowed', 'Only an owner can remove an owner.');
        end if;
        perform private.refuse_to_lose_owner(workspace, person);
    end if;

    delete from api.members
    where members.workspace_id = workspace and members.user_id = person;
end
$$;
comment on function private.remove_member(uuid, uuid) is
    'The person is no member any more. Everybody may leave; owners remove everybody, admins all but owners; there is always an owner.';

create function api.create_workspace(name text)
returns api.workspaces
language sql
set search_path = ''
as $$ select private.create_workspace(name); $$;
comment on function api.create_workspace(text) is 'A new workspace with this name, owned by the caller.';

create function api.delete_workspace(workspace_id uuid)
returns void
language sql
set search_path = ''
as $$ select private.delete_workspace(workspace_id); $$;
comment on function api.delete_workspace(uuid) is
    'The workspace is gone. Refuses with workspace_not_found (404), not_allowed (403), personal_workspace (409), session_ended (401).';

create function api.change_member_role(workspace_id uuid, user_id uuid, role text)
returns api.members
language sql
set search_path = ''
as $$ select private.change_member_role(workspace_id, user_id, role); $$;
comment on function api.change_member_role(uuid, uuid, text) is
    'The membership with its new role. Refuses with workspace_not_found, member_not_found (404), not_allowed (403), last_owner, personal_workspace (409), session_ended (401).';

create function api.remove_member(workspace_id uuid, user_id uuid)
returns void
language sql
set search_path = ''
as $$ select private.remove_member(workspace_id, user_id); $$;
comment on function api.remove_member(uuid, uuid) is
    'The person has left or was removed. Refuses with workspace_not_found, member_not_found (404), not_allowed (403), last_owner, personal_workspace (409), session_ended (401).';

grant execute on function private.create_workspace(text) to authenticated;
grant execute on function private.delete_workspace(uuid) to authenticated;
grant execute on function private.change_member_role(uuid, uuid, text) to authenticated;
grant execute on function private.remove_member(uuid, uuid) to authenticated;
grant execute on function api.create_workspace(text) to authenticated;
grant execute on function api.delete_workspace(uuid) to authenticated;
grant execute on function api.change_member_role(uuid, uuid, text) to authenticated;
grant execute on function api.remove_member(uuid, uuid) to authenticated;
