-- One row a person, made at sign-up. Fellow members may read all of it, so anything private belongs elsewhere.
create table api.profiles (
    id uuid primary key references auth.users (id) on delete cascade,
    display_name text not null
        constraint display_name_is_one_line check (display_name ~ '^[^[:cntrl:]]{1,100}$' and display_name = btrim(display_name)),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table api.profiles is 'A person, as fellow members see them. Made by trigger at sign-up, gone with the auth user.';
comment on column api.profiles.id is 'The id of the auth user.';
comment on column api.profiles.display_name is 'One line of 1 to 100 characters, no space around it.';
comment on column api.profiles.created_at is 'When the person signed up.';
comment on column api.profiles.updated_at is 'When the row last changed; strictly increasing, so that it serves as its version.';

create trigger profiles_touch_updated_at
before update on api.profiles
for each row
when (old.* is distinct from new.*)
execute function private.touch_updated_at();
comment on trigger profiles_touch_updated_at on api.profiles is 'Keeps updated_at.';

alter table api.profiles enable row level security;

create policy "People change their own profile"
on api.profiles for update to authenticated
using (id = (select auth.uid()))
with check (id = (select auth.uid()));
comment on policy "People change their own profile" on api.profiles is 'Of its columns only display_name is granted for update.';

grant select, update (display_name) on api.profiles to authenticated;
