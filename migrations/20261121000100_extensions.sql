-- Extensions come first: what they create must keep `execute` for public, and a later file takes that default away.
-- Hosted Supabase has the schema already; a plain database gets it here, with the comment that tells `down` so.
do $$
begin
    if to_regnamespace('extensions') is null then
        create schema extensions;
        comment on schema extensions is 'Extensions live here, out of the way of search paths. Made by Buttress.';
        grant usage on schema extensions to anon, authenticated, service_role;
    end if;
end
$$;

create extension if not exists vector with schema extensions;
