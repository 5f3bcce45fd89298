-- What happens here when Auth makes or deletes a user. It happens in Auth's own transaction: a person never exists without
-- a profile and a place of their own, and no workspace is left without an owner.
create function private.name_for(metadata jsonb, email text)
returns text
language sql
immutable
set search_path = ''
as $$
    select coalesce(
        nullif(
            btrim(left(btrim(regexp_replace(
                coalesce(metadata ->> 'display_name', metadata ->> 'full_name', metadata ->> 'name', ''),
                '[[:cntrl:][:space:]]+', ' ', 'g'
            )), 100)),
            ''
        ),
        nullif(btrim(left(regexp_replace(split_part(email, '@', 1), '[[:cntrl:][:space:]]+', ' ', 'g'), 100)), ''),
        'New member'
    );
$$;
comment on function private.name_for(jsonb, text) is
    'A display name the profile accepts, whatever a sign-up sent: the name in its metadata, else the e-mail''s local part, else New member.';

create function private.make_place_for(person uuid, display_name text)
returns void
language plpgsql
set search_path = ''
as $$
declare
    workspace uuid;
begin
    insert into api.profiles (id, display_name)
    values (person, display_name);

    insert into api.workspaces (name, is_personal, created_by)
    values ('Personal workspace', true, person)
    returning id into workspace;

    insert into api.members (workspace_id, user_id, role)
    values (workspace, person, 'owner');
end
$$;
comment on function private.make_place_for(uuid, text) is 'The person has a profile and owns a personal workspace.';

create function private.welcome_person()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
    perform private.make_place_for(new.id, private.name_for(new.raw_user_meta_data, new.email));
    return null;
end
$$;
comment on function private.welcome_person() is 'Trigger: makes a place for the new person.';

create function private.part_with_person()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
    -- whoever changes roles locks the workspace first (see the next file); in one order, so that two of us cannot deadlock
    perform from api.workspaces
    where id in (select members.workspace_id from api.members where members.user_id = old.id)
    order by id
    for no key update;

    delete from api.workspaces
    where (is_personal and created_by = old.id)
        or (
            id in (select members.workspace_id from api.members where members.user_id = old.id)
            and not exists (
                select from api.members as others
                where others.workspace_id = workspaces.id and others.user_id <> old.id
            )
        );

    if exists (
        select from api.members as mine
        where mine.user_id = old.id and mine.role = 'owner'
            and not exists (
                select from api.members as others
                where others.workspace_id = mine.workspace_id and others.role = 'owner' and others.user_id <> old.id
            )
    ) then
        perform private.refuse(409, 'last_owner', 'This person is the only owner of a workspace that others use. Make another member its owner first.');
    end if;
    return old;
end
$$;
comment on function private.part_with_person() is
    'Trigger: workspaces only this person used are gone. Refuses with last_owner while others would be left without an owner.';

create trigger buttress_welcome_person
after insert on auth.users
for each row
execute function private.welcome_person();

create trigger buttress_part_with_person
before delete on auth.users
for each row
execute function private.part_with_person();

-- Whoever signed up before this file, in a project that already had users. The trigger's lock keeps newcomers out until then.
select private.make_place_for(users.id, private.name_for(users.raw_user_meta_data, users.email))
from auth.users
where not exists (select from api.profiles where profiles.id = users.id);
