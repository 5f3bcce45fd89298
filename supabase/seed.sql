-- Run after the migrations by `supabase start` and `supabase db reset`, and by `supabase db push --include-seed`; never by
-- ./buttress. Two people and a workspace to look at. They have no password: nobody signs in as them. May be run again.
insert into auth.users (id, aud, role, email, email_confirmed_at, raw_user_meta_data, created_at, updated_at)
values
    (
        '00000000-0000-4000-8000-000000000001', 'authenticated', 'authenticated', 'ada@example.com', now(),
        '{"display_name": "Ada Lovelace"}', now(), now()
    ),
    (
        '00000000-0000-4000-8000-000000000002', 'authenticated', 'authenticated', 'charles@example.com', now(),
        '{"display_name": "Charles Babbage"}', now(), now()
    )
on conflict (id) do nothing;

insert into api.workspaces (id, name, created_by)
values ('00000000-0000-4000-8000-00000000000a', 'Analytical Engine', '00000000-0000-4000-8000-000000000001')
on conflict (id) do nothing;

insert into api.members (workspace_id, user_id, role)
values
    ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000001', 'owner'),
    ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000002', 'member')
on conflict (workspace_id, user_id) do nothing;
