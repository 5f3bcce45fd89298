drop function gateway.finish(timestamptz, text[], uuid[], text[], text[], boolean[], text[], text[], integer[], bigint[]);
