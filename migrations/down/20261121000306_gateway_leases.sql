drop function gateway.reprice(text, bigint, bigint);
drop function gateway.reprice_at(timestamptz, text, bigint, bigint);
drop function gateway.reap();
drop function gateway.reap_at(timestamptz, integer);
drop function gateway.renew(text, integer);
drop function gateway.renew_at(timestamptz, text, integer);
