drop function api.usage_summary(date, date, integer, date, text);
drop function private.usage_summary(date, date, integer, date, text);
