drop function gateway.reap();
drop function gateway.reap_at(timestamptz, integer);
drop function gateway.renew(text, integer);
drop function gateway.renew_at(timestamptz, text, integer);
drop function gateway.void(text, uuid);
drop function gateway.settle(text, text, boolean, text, bigint, bigint, bigint, bigint);
drop function gateway.settle_at(timestamptz, text, text, boolean, text, bigint, bigint, bigint, bigint);
drop function gateway.finish_call(timestamptz, text, uuid, text, text, boolean, text, bigint, bigint, bigint, bigint);
