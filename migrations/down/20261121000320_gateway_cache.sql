drop function gateway.sweep_cache();
drop function gateway.store_cached(bytea, uuid, bigint, bytea);
drop function gateway.find_cached(bytea, uuid, bigint);
drop table gateway.cache_bounds;
drop table gateway.cached_answers;
