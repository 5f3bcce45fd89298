"""The cache keeps no more than its bounds say, of one tenant and of all; the oldest make room."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.stack import RunningStack


@pytest.fixture
async def cache(database: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction that is rolled back: bounds and rows are the test's own.

    A gateway of other tests may still be storing an answer, or sweep: both wait until then. Locked in a sweep's order.
    """
    transaction = database.transaction()
    await transaction.start()
    await database.execute("update gateway.cache_bounds set counted_answers = 0, counted_bytes = 0")
    await database.execute("lock table gateway.cached_answers in share row exclusive mode")
    await database.execute("delete from gateway.cached_answers")
    yield database
    await transaction.rollback()


async def bound(cache: asyncpg.Connection, **bounds: int) -> None:
    changes = ", ".join(f"{name} = {value}" for name, value in bounds.items())
    await cache.execute(f"update gateway.cache_bounds set {changes}")


async def store(cache: asyncpg.Connection, tenant_id: UUID, *, size: int = 10, ttl_ms: int = 60_000) -> bytes:
    """A new answer, a second older than nothing: rows of one transaction share its time, so they are aged by hand."""
    await cache.execute("update gateway.cached_answers set stored_at = stored_at - interval '1 second'")
    key = os.urandom(32)
    await cache.fetchval("select gateway.store_cached($1, $2, $3, $4)", key, tenant_id, ttl_ms, bytes(size))
    return key


async def keys(cache: asyncpg.Connection) -> set[bytes]:
    return {row[0] for row in await cache.fetch("select key from gateway.cached_answers")}


async def test_the_oldest_answers_of_a_tenant_make_room_by_number(cache: asyncpg.Connection) -> None:
    await bound(cache, tenant_answers=3)
    mine, other = uuid4(), uuid4()
    kept = await store(cache, other)
    stored = [await store(cache, mine) for _ in range(5)]
    assert await keys(cache) == {kept, *stored[-3:]}


async def test_the_oldest_answers_of_a_tenant_make_room_by_size(cache: asyncpg.Connection) -> None:
    await bound(cache, tenant_bytes=1000)
    mine = uuid4()
    stored = [await store(cache, mine, size=400) for _ in range(4)]
    assert await keys(cache) == set(stored[-2:])
    await store(cache, mine, size=1001)
    assert await keys(cache) == set(stored[-2:])


async def test_a_full_cache_stores_nothing_before_it_is_swept(cache: asyncpg.Connection) -> None:
    await bound(cache, all_answers=10, all_bytes=10_000)
    stored = [await store(cache, uuid4()) for _ in range(12)]
    assert await cache.fetchval("select gateway.sweep_cache()") == 3
    assert await keys(cache) == set(stored[-9:])
    await bound(cache, all_answers=9)
    await store(cache, uuid4())
    assert await keys(cache) == set(stored[-9:])


async def test_the_oldest_of_all_make_room_by_size(cache: asyncpg.Connection) -> None:
    await bound(cache, all_bytes=1000)
    stored = [await store(cache, uuid4(), size=300) for _ in range(4)]
    await cache.fetchval("select gateway.sweep_cache()")
    assert await keys(cache) == set(stored[-3:])


async def test_what_has_expired_is_swept(cache: asyncpg.Connection) -> None:
    lives = await store(cache, uuid4())
    gone = await store(cache, uuid4())
    await cache.execute("update gateway.cached_answers set expires_at = now() where key = $1", gone)
    assert await cache.fetchval("select gateway.sweep_cache()") == 1
    assert await keys(cache) == {lives}


async def test_an_answer_stored_again_takes_the_place_of_the_older_one(cache: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    key = await store(cache, tenant_id)
    await cache.fetchval("select gateway.store_cached($1, $2, 60000, $3)", key, tenant_id, b"newer")
    assert await cache.fetchval("select gateway.find_cached($1, $2, 60000)", key, tenant_id) == b"newer"


async def test_the_database_itself_gives_an_answer_to_its_own_tenant_only(cache: asyncpg.Connection) -> None:
    tenant_id, other = uuid4(), uuid4()
    key = await store(cache, tenant_id)
    assert await cache.fetchval("select gateway.find_cached($1, $2, 60000)", key, other) is None
    await cache.fetchval("select gateway.store_cached($1, $2, 60000, $3)", key, other, b"poison")
    assert await cache.fetchval("select gateway.find_cached($1, $2, 60000)", key, tenant_id) == bytes(10)


@pytest.mark.parametrize("ttl_ms", [0, -1, 604_800_001, None])
async def test_nothing_is_kept_for_longer_than_a_week(cache: asyncpg.Connection, ttl_ms: int | None) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await cache.fetchval("select gateway.store_cached($1, $2, $3, $4)", bytes(32), uuid4(), ttl_ms, b"x")


async def test_the_gateways_login_reaches_the_cache_through_its_functions_only(stack: RunningStack) -> None:
    connection = await asyncpg.connect(stack.gateway_database_url)
    try:
        assert await connection.fetchval("select gateway.find_cached($1, $2, 1000)", bytes(32), uuid4()) is None
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("select * from gateway.cached_answers")
    finally:
        await connection.close()
