drop function gateway.admit(timestamptz, text[], uuid[], uuid[], uuid[], uuid[], text[], bigint[], bigint[], integer[], boolean);
drop function gateway.refusal(timestamptz, gateway.subject[], integer[], bigint[], bigint[], bigint[], integer, bigint, bigint, bigint, bigint);
drop function gateway.subjects(timestamptz, uuid[], uuid[], uuid[]);
drop type gateway.subject;
drop type gateway.answer;
