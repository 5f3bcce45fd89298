drop function gateway.post(text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]);
drop function gateway.post_at(timestamptz, text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[], text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[]);
drop function gateway.admit_lone(timestamptz, gateway.subject[], text, uuid, uuid, uuid, uuid, text, bigint, bigint, integer);
drop function gateway.finish_lone(timestamptz, text, uuid, text, text, boolean, text, text, integer[], bigint);
