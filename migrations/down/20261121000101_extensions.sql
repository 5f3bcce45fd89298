-- Something outside Buttress may have come to use the extension: then it stays, for dropping it would take columns with it.
do $$
begin
    drop extension if exists vector;
exception
    when dependent_objects_still_exist then
        raise notice 'The extension vector stays, because something outside Buttress uses it.';
end
$$;
