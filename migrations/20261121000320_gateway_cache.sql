-- Whole answers that were given before, for callers who asked for that. What a row answers and what it says, nobody can read off
-- it: the key is an HMAC, and the answer is encrypted with a key that only the same request, made by the same tenant, yields.
-- A cache may lose anything at any time, so its tables are not logged: a crash empties them.
create unlogged table gateway.cached_answers (
    key bytea primary key
        constraint key_is_a_digest check (octet_length(key) = 32),
    tenant_id uuid not null,
    stored_at timestamptz not null,
    expires_at timestamptz not null,
    size integer not null,
    answer bytea not null
        constraint answer_is_small check (octet_length(answer) <= 1048576)
);
comment on table gateway.cached_answers is 'Complete answers, encrypted, for at most a week. Bounded by gateway.cache_bounds.';
comment on column gateway.cached_answers.key is 'HMAC-SHA256 of the tenant, the endpoint, the request and all that decides what it may be answered.';
comment on column gateway.cached_answers.tenant_id is 'The workspace the call was made for, or else the user. Only the same one is answered with it.';
comment on column gateway.cached_answers.stored_at is 'When the answer was given.';
comment on column gateway.cached_answers.expires_at is 'From then on it is nobody''s answer any more.';
comment on column gateway.cached_answers.size is 'The length of answer in bytes, to be added up without reading it.';
comment on column gateway.cached_answers.answer is 'The answer''s bytes, encrypted (AES-256-GCM). At most 1 MiB.';

alter table gateway.cached_answers alter column answer set storage external; -- what is encrypted cannot be compressed

create index cached_answers_of_tenant on gateway.cached_answers (tenant_id, stored_at desc, key) include (size);
comment on index gateway.cached_answers_of_tenant is 'Finds one tenant''s oldest answers, and how large all of them are, without reading the table.';
create index cached_answers_by_expiry on gateway.cached_answers (expires_at);
comment on index gateway.cached_answers_by_expiry is 'Lets the sweeper find what has expired.';
create index cached_answers_by_age on gateway.cached_answers (stored_at desc, key) include (size);
comment on index gateway.cached_answers_by_age is 'Lets the sweeper find the oldest of all.';

create table gateway.cache_bounds (
    is_only boolean primary key default true
        constraint there_is_one check (is_only),
    tenant_answers integer not null,
    tenant_bytes bigint not null,
    all_answers integer not null,
    all_bytes bigint not null,
    counted_answers bigint not null default 0,
    counted_bytes bigint not null default 0
);
comment on table gateway.cache_bounds is 'How much the cache may keep: one row, edit it. And how much it kept when it was last swept.';
comment on column gateway.cache_bounds.is_only is 'True: there is one row.';
comment on column gateway.cache_bounds.tenant_answers is 'The most answers of one tenant; the oldest make room.';
comment on column gateway.cache_bounds.tenant_bytes is 'The most bytes of one tenant.';
comment on column gateway.cache_bounds.all_answers is 'The most answers of all tenants. Once there are as many, nothing is stored before the next sweep.';
comment on column gateway.cache_bounds.all_bytes is 'The most bytes of all tenants.';
comment on column gateway.cache_bounds.counted_answers is 'How many there were at the last sweep.';
comment on column gateway.cache_bounds.counted_bytes is 'How large they were.';

insert into gateway.cache_bounds (tenant_answers, tenant_bytes, all_answers, all_bytes)
values (1000, 16777216, 100000, 1073741824);

alter table gateway.cached_answers enable row level security;
alter table gateway.cache_bounds enable row level security;

create function gateway.find_cached(p_key bytea, p_tenant_id uuid, p_max_age_ms bigint)
returns bytea
language sql
stable
security definer
set search_path = ''
as $$
    select cached.answer
    from gateway.cached_answers as cached
    where cached.key = p_key
        and cached.tenant_id = p_tenant_id
        and cached.expires_at > now()
        and cached.stored_at > now() - p_max_age_ms * interval '1 millisecond';
$$;
comment on function gateway.find_cached(bytea, uuid, bigint) is 'The answer under this key, if this tenant stored it, it has not expired and is no older than that; else null.';

create function gateway.store_cached(p_key bytea, p_tenant_id uuid, p_ttl_ms bigint, p_answer bytea)
returns boolean
language plpgsql
security definer
set search_path = ''
as $$
declare
    v_bounds gateway.cache_bounds;
begin
    if not coalesce(p_ttl_ms between 1 and 604800000, false) then
        raise exception 'an answer is cached for a week at most' using errcode = 'invalid_parameter_value';
    end if;

    select * into strict v_bounds from gateway.cache_bounds;
    if octet_length(p_answer) > least(v_bounds.tenant_bytes, 1048576)
        or v_bounds.counted_answers >= v_bounds.all_answers or v_bounds.counted_bytes >= v_bounds.all_bytes then
        return false;
    end if;

    insert into gateway.cached_answers as cached (key, tenant_id, stored_at, expires_at, size, answer)
    values (p_key, p_tenant_id, now(), now() + p_ttl_ms * interval '1 millisecond', octet_length(p_answer), p_answer)
    on conflict (key) do update
    set stored_at = excluded.stored_at, expires_at = excluded.expires_at, size = excluded.size, answer = excluded.answer
    where cached.tenant_id = excluded.tenant_id;

    -- in one order, and never waiting: another call of the same tenant may be doing the same
    delete from gateway.cached_answers
    where key in (
        select locked.key
        from gateway.cached_answers as locked
        where locked.key in (
            select ranked.key
            from (
                select
                    mine.key,
                    row_number() over newest_first as place,
                    sum(mine.size) over newest_first as bytes
                from gateway.cached_answers as mine
                where mine.tenant_id = p_tenant_id
                window newest_first as (order by mine.stored_at desc, mine.key)
            ) as ranked
            where ranked.place > v_bounds.tenant_answers or ranked.bytes > v_bounds.tenant_bytes
        )
        for update skip locked
    );
    return true;
end
$$;
comment on function gateway.store_cached(bytea, uuid, bigint, bytea) is
    'The answer is kept for so long, and the tenant''s oldest have made room for it; false where it is too large, or the cache is full.';

create function gateway.sweep_cache()
returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
    v_bounds gateway.cache_bounds;
    v_answers bigint;
    v_bytes bigint;
    v_swept bigint;
    v_more bigint := 0;
begin
    -- one process at a time sweeps; the others have nothing to do meanwhile
    select * into v_bounds from gateway.cache_bounds for update skip locked;
    if not found then
        return 0;
    end if;

    delete from gateway.cached_answers
    where key in (
        select expired.key
        from gateway.cached_answers as expired
        where expired.expires_at <= now()
        order by expired.expires_at
        limit 2000
        for update skip locked
    );
    get diagnostics v_swept = row_count;

    select count(*), coalesce(sum(cached.size), 0) into v_answers, v_bytes from gateway.cached_answers as cached;
    if v_answers >= v_bounds.all_answers or v_bytes >= v_bounds.all_bytes then
        -- down to nine tenths, so that there is room until the next sweep
        delete from gateway.cached_answers
        where key in (
            select locked.key
            from gateway.cached_answers as locked
            where locked.key in (
                select ranked.key
                from (
                    select
                        cached.key,
                        row_number() over newest_first as place,
                        sum(cached.size) over newest_first as bytes
                    from gateway.cached_answers as cached
                    window newest_first as (order by cached.stored_at desc, cached.key)
                ) as ranked
                where ranked.place > v_bounds.all_answers * 0.9 or ranked.bytes > v_bounds.all_bytes * 0.9
            )
            for update skip locked
        );
        get diagnostics v_more = row_count;
        select count(*), coalesce(sum(cached.size), 0) into v_answers, v_bytes from gateway.cached_answers as cached;
    end if;

    update gateway.cache_bounds set counted_answers = v_answers, counted_bytes = v_bytes;
    return v_swept + v_more;
end
$$;
comment on function gateway.sweep_cache() is
    'What has expired is gone (2,000 rows at a time), and the oldest of all, where there is too much; how many rows that were. Call it every few seconds from every process: one at a time works.';

grant execute on function gateway.find_cached(bytea, uuid, bigint) to gateway_service;
grant execute on function gateway.store_cached(bytea, uuid, bigint, bytea) to gateway_service;
grant execute on function gateway.sweep_cache() to gateway_service;
