drop function gateway.lock_meters(text[], uuid[], uuid[], uuid[]);
drop function gateway.tat_under_limit(bigint, bigint, bigint, bigint);
drop function gateway.unit_ns(bigint);
