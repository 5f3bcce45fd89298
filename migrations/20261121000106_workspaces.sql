-- Workspaces and who belongs to them. Rows are made and roles changed by functions only (a later file), which keep the rules
-- that a policy cannot: there is always an owner, a personal workspace stays.
create table api.workspaces (
    id uuid primary key default gen_random_uuid(),
    name text not null
        constraint name_is_one_line check (name ~ '^[^[:cntrl:]]{1,100}$' and name = btrim(name)),
    is_personal boolean not null default false,
    created_by uuid references api.profiles (id) on delete set null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint personal_means_of_a_person check (not is_personal or created_by is not null)
);
comment on table api.workspaces is 'What people share: members, usage and everything that later features keep belong to one workspace.';
comment on column api.workspaces.id is 'Random, so that it tells nothing.';
comment on column api.workspaces.name is 'One line of 1 to 100 characters, no space around it. Need not be unique.';
comment on column api.workspaces.is_personal is 'Made at sign-up for the one person in created_by; cannot be deleted, and they cannot leave it.';
comment on column api.workspaces.created_by is 'Who made it; null once that person is deleted.';
comment on column api.workspaces.created_at is 'When it was made.';
comment on column api.workspaces.updated_at is 'When the row last changed; strictly increasing, so that it serves as its version.';

create index workspaces_created_by_idx on api.workspaces (created_by);
create unique index workspaces_one_personal_each_idx on api.workspaces (created_by) where is_personal;
comment on index api.workspaces_created_by_idx is 'Behind the foreign key to profiles.';
comment on index api.workspaces_one_personal_each_idx is 'Nobody has two personal workspaces, whatever races at sign-up.';

create trigger workspaces_touch_updated_at
before update on api.workspaces
for each row
when (old.* is distinct from new.*)
execute function private.touch_updated_at();
comment on trigger workspaces_touch_updated_at on api.workspaces is 'Keeps updated_at.';

create table api.members (
    workspace_id uuid not null references api.workspaces (id) on delete cascade,
    user_id uuid not null references api.profiles (id) on delete cascade,
    role text not null constraint role_is_known check (role in ('owner', 'admin', 'member', 'viewer')),
    created_at timestamptz not null default now(),
    primary key (workspace_id, user_id)
);
comment on table api.members is 'Who belongs to which workspace, and as what. Every workspace has at least one owner.';
comment on column api.members.workspace_id is 'The workspace.';
comment on column api.members.user_id is 'The person.';
comment on column api.members.role is
    'owner: everything. admin: renames, and manages all but owners. member: uses it. viewer: reads it.';
comment on column api.members.created_at is 'When the person joined.';

-- role is carried along so that every policy below is answered from the index alone
create index members_user_id_idx on api.members (user_id, workspace_id) include (role);
comment on index api.members_user_id_idx is 'Behind every policy that asks which workspaces the caller belongs to, and behind the foreign key to profiles.';

-- A policy of members that read members would never end: these read it as their owner, past row level security.
create function private.workspaces_of_caller(with_roles text[] default null)
returns setof uuid
language sql
stable
security definer
set search_path = ''
as $$
    select members.workspace_id
    from api.members
    where members.user_id = (select auth.uid())
        and (with_roles is null or members.role = any (with_roles));
$$;
comment on function private.workspaces_of_caller(text[]) is
    'The ids of the workspaces the caller belongs to, with one of these roles if any are given. For policies: `= any (array(select private.workspaces_of_caller()))` runs once a query.';

create function private.fellows_of_caller()
returns setof uuid
language sql
stable
security definer
set search_path = ''
as $$
    select distinct fellows.user_id
    from api.members as mine
    inner join api.members as fellows on mine.workspace_id = fellows.workspace_id
    where mine.user_id = (select auth.uid());
$$;
comment on function private.fellows_of_caller() is 'The ids of everybody who shares a workspace with the caller, the caller included.';

grant execute on function private.workspaces_of_caller(text[]) to authenticated;
grant execute on function private.fellows_of_caller() to authenticated;

alter table api.workspaces enable row level security;
alter table api.members enable row level security;

create policy "Members read their workspaces"
on api.workspaces for select to authenticated
using (id = any (array(select private.workspaces_of_caller())));
comment on policy "Members read their workspaces" on api.workspaces is 'Whatever their role.';

create policy "Owners and admins rename their workspaces"
on api.workspaces for update to authenticated
using (id = any (array(select private.workspaces_of_caller(array['owner', 'admin']))))
with check (id = any (array(select private.workspaces_of_caller(array['owner', 'admin']))));
comment on policy "Owners and admins rename their workspaces" on api.workspaces is 'Of its columns only name is granted for update.';

create policy "Members read who else belongs to their workspaces"
on api.members for select to authenticated
using (workspace_id = any (array(select private.workspaces_of_caller())));
comment on policy "Members read who else belongs to their workspaces" on api.members is 'Whatever their role. Nobody writes this table directly.';

create policy "People read their own profile and those of fellow members"
on api.profiles for select to authenticated
using (id = (select auth.uid()) or id = any (array(select private.fellows_of_caller())));
comment on policy "People read their own profile and those of fellow members" on api.profiles is
    'One''s own is asked first, so that reading it never lists the fellows.';

grant select, update (name) on api.workspaces to authenticated;
grant select on api.members to authenticated;
