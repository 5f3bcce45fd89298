drop function api.usage_report(text[], date, date, uuid, integer, jsonb);
drop function private.usage_report(text[], date, date, uuid, integer, api.usage_sums);
drop function private.usage_sums(uuid, uuid, date, date);
drop type api.usage_sums;
