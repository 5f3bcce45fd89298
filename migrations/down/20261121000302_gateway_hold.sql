drop function gateway.hold(text, uuid, uuid, uuid, text, bigint, bigint, integer);
drop function gateway.hold_at(timestamptz, text, uuid, uuid, uuid, text, bigint, bigint, integer);
drop function gateway.tat_under_limit(bigint, bigint, bigint, bigint);
drop function gateway.unit_ns(bigint);
drop type gateway.hold_answer;
