-- loses data: every workspace and membership
drop policy "People read their own profile and those of fellow members" on api.profiles;
drop table api.members, api.workspaces;
drop function private.fellows_of_caller();
drop function private.workspaces_of_caller(text[]);
