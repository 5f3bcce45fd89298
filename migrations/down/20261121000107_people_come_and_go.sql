drop trigger buttress_part_with_person on auth.users;
drop trigger buttress_welcome_person on auth.users;
drop function private.part_with_person();
drop function private.welcome_person();
drop function private.make_place_for(uuid, text);
drop function private.name_for(jsonb, text);
