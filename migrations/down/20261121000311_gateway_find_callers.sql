drop function gateway.note_use_of_keys(uuid[]);
drop function gateway.find_callers(uuid[], bytea[], uuid[]);
drop function gateway.allowed_by_both(text[], text[]);
