drop function gateway.finish_one(text, uuid, text, text, boolean, text, text, integer[], bigint);
drop function gateway.hold_one(text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer);
drop function gateway.post(text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]);
drop function gateway.post_at(timestamptz, text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]);
drop function gateway.finish_lone(timestamptz, text, uuid, text, text, boolean, text, text, integer[], bigint);
drop function gateway.admit_lone(timestamptz, text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer);
