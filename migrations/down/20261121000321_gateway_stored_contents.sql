-- loses data: every stored call
drop function gateway.sweep_contents();
drop function gateway.store_content(uuid, text, uuid, text, text, boolean, boolean, text, text);
drop table gateway.stored_contents;
