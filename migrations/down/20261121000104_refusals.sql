drop function private.touch_updated_at();
drop function private.live_caller();
drop function private.refuse(integer, text, text);
