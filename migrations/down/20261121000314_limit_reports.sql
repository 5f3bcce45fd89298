drop function api.limit_report(uuid, uuid);
drop function private.limit_report(uuid, uuid);
drop function private.limits_of(text, uuid);
drop function private.used_of_rate(bigint, bigint, bigint, bigint);
drop type api.limit_state;
