"""The books by day: room for what comes, sums of what is over, an end for what is old; each call counted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from stack import migrations
from tests.support.ledger import Clockwork, TestLimits, new_user
from tests.support.scratch_database import scratch_database
from tests.support.stack import RunningStack

NOON = datetime(2031, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
async def books_url(stack: RunningStack) -> AsyncIterator[str]:
    """A database of these tests' own: upkeep moves whole tables about."""
    async with scratch_database(stack) as url:
        await migrations.up(url)
        yield url


@pytest.fixture
async def books(books_url: str) -> AsyncIterator[asyncpg.Connection]:
    """The database without calls and days."""
    connection = await asyncpg.connect(books_url)
    for name in await connection.fetch(
        "select relname from pg_class where relname ~ '^usage_[0-9]{8}$' and relkind = 'r'"
    ):
        await connection.execute(f"drop table gateway.{name[0]}")
    await connection.execute(
        "truncate gateway.usage, gateway.usage_archive, gateway.usage_daily, gateway.holds, gateway.meters"
    )
    await connection.execute("update gateway.bookkeeping set meters_forgotten_on = null")
    try:
        yield connection
    finally:
        await connection.close()


async def keep(books: asyncpg.Connection, now: datetime) -> list[str]:
    """What upkeep did, step by step, each in a transaction of its own."""
    steps: list[str] = []
    while True:
        try:
            step = await books.fetchval("select gateway.upkeep_at($1)", now)
        except asyncpg.LockNotAvailableError:  # whoever was in the way was held up
            continue
        if step is None:
            return steps
        steps.append(step)


async def call(
    books: asyncpg.Connection, user_id: UUID, when: datetime, *, tokens: int = 7, cost_nano_usd: int = 100
) -> None:
    """A call held and settled at this moment."""
    clockwork, now_us, request_id = Clockwork(books), round(when.timestamp() * 1_000_000), uuid4().hex
    answer = await clockwork.hold(now_us, user_id, request_id=request_id, tokens=tokens, cost_nano_usd=cost_nano_usd)
    assert answer["verdict"] == "held"
    assert await clockwork.settle(now_us, request_id, tokens=tokens, cost_nano_usd=cost_nano_usd) == "settled"


async def reported(books: asyncpg.Connection) -> dict[date, tuple[int, int, int]]:
    """What a report says of each day: calls, tokens and cost, from the sums and from what is not added up yet."""
    rows = await books.fetch(
        """
        select day, sum(calls)::bigint, sum(tokens)::bigint, sum(cost)::bigint
        from (
            select day, calls, input_tokens as tokens, cost_nano_usd as cost from gateway.usage_daily
            union all
            select (settled_at at time zone 'UTC')::date, 1, input_tokens, cost_nano_usd
            from gateway.usage where state <> 'voided'
        ) as counted
        group by day
        """
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


async def where_rows_are(books: asyncpg.Connection, parent: str) -> dict[str, int]:
    rows = await books.fetch(f"select tableoid::regclass::text, count(*) from gateway.{parent} group by 1")
    return {row[0]: row[1] for row in rows}


async def test_the_next_days_have_partitions_before_they_begin(books: asyncpg.Connection) -> None:
    user_id = await new_user(books, TestLimits())
    assert await keep(books, NOON) == ["added usage_20310310", "added usage_20310311", "added usage_20310312"]
    assert await keep(books, NOON) == []
    await call(books, user_id, NOON)
    await call(books, user_id, NOON + DAY)
    assert await where_rows_are(books, "usage") == {"gateway.usage_20310310": 1, "gateway.usage_20310311": 1}
    assert await keep(books, NOON + DAY / 4) == [], "the day is not over"


async def test_a_day_that_is_over_is_added_up_once_and_leaves_for_the_archive(books: asyncpg.Connection) -> None:
    user_id, other = await new_user(books, TestLimits()), await new_user(books, TestLimits())
    await keep(books, NOON)
    for caller in (user_id, user_id, other):
        await call(books, caller, NOON)
    await call(books, user_id, NOON + DAY)
    before = await reported(books)
    midnight = NOON + DAY / 2
    assert "added up usage_20310310" not in await keep(books, midnight + timedelta(minutes=59))
    assert await keep(books, midnight + timedelta(minutes=61)) == ["added up usage_20310310", "archived usage_20310310"]
    assert await keep(books, midnight + timedelta(minutes=61)) == []
    assert await reported(books) == before == {NOON.date(): (3, 21, 300), (NOON + DAY).date(): (1, 7, 100)}
    assert await where_rows_are(books, "usage_archive") == {"gateway.usage_20310310": 3}
    sums = await books.fetch(
        "select user_id, calls, input_tokens, endpoint, model from gateway.usage_daily order by calls"
    )
    assert [tuple(row) for row in sums] == [
        (other, 1, 7, "chat", "test/model"),
        (user_id, 2, 14, "chat", "test/model"),
    ]


async def test_calls_of_days_without_a_partition_never_fail_and_are_counted_too(books: asyncpg.Connection) -> None:
    user_id = await new_user(books, TestLimits())
    await call(books, user_id, NOON)  # nobody has kept the books yet
    await keep(books, NOON)
    await call(books, user_id, NOON)
    assert await where_rows_are(books, "usage") == {"gateway.usage_other": 2}, "what began there goes on there"
    assert "added up usage_other" in await keep(books, NOON + DAY)
    await call(books, user_id, NOON, cost_nano_usd=5)  # a clock went back to a day that is gone
    assert await reported(books) == {NOON.date(): (3, 21, 205)}
    assert "added up usage_other" in await keep(books, NOON + DAY)
    assert await reported(books) == {NOON.date(): (3, 21, 205)}
    assert await where_rows_are(books, "usage") == {}
    assert await where_rows_are(books, "usage_archive") == {"gateway.usage_archive_other": 3}


async def test_voided_calls_are_in_no_sum(books: asyncpg.Connection) -> None:
    user_id, now_us = await new_user(books, TestLimits()), round(NOON.timestamp()) * 1_000_000
    await keep(books, NOON)
    await Clockwork(books).hold(now_us, user_id, request_id="v")
    await Clockwork(books).void(now_us, "v")
    await keep(books, NOON + DAY)
    assert await reported(books) == {}
    assert await where_rows_are(books, "usage_archive") == {"gateway.usage_20310310": 1}


async def test_single_calls_are_dropped_by_age_and_their_sums_stay(books: asyncpg.Connection) -> None:
    user_id = await new_user(books, TestLimits())
    for days in range(3):
        await keep(books, NOON + days * DAY)
        await call(books, user_id, NOON + days * DAY)
    await call(books, await new_user(books, TestLimits()), NOON - 30 * DAY)
    assert await keep(books, NOON + 402 * DAY) == [
        "added usage_20320415",
        "added usage_20320416",
        "added usage_20320417",
        *(f"added up usage_2031031{day}" for day in (2, 3, 4)),
        "added up usage_other",
        *(f"archived usage_2031031{day}" for day in (2, 3, 4)),
        "dropped usage_20310310",
        "dropped usage_20310311",
    ]
    assert await where_rows_are(books, "usage_archive") == {"gateway.usage_20310312": 1}
    assert len(await reported(books)) == 4
    await books.execute("update gateway.bookkeeping set usage_kept_days = 1")
    try:
        assert await keep(books, NOON + 402 * DAY) == [f"dropped usage_2031031{day}" for day in (2, 3, 4)]
    finally:
        await books.execute("update gateway.bookkeeping set usage_kept_days = 400")


async def test_meters_of_who_is_gone_are_forgotten_after_a_month_and_nobody_elses(books: asyncpg.Connection) -> None:
    """BerriAI/litellm#29342: a table with a row for each of something that is never pruned."""
    gone, stays, running = [await new_user(books, TestLimits()) for _ in range(3)]
    for user_id in (gone, stays, running):
        await call(books, user_id, NOON)
    assert (await Clockwork(books).hold(round(NOON.timestamp() * 1_000_000), running))["verdict"] == "held"
    await books.execute("delete from auth.users where id = any ($1)", [gone, running])
    await books.execute("insert into gateway.meters (scope, subject_id) values ('key', $1), ('workspace', $1)", gone)

    async def forget(when: datetime) -> int:
        return int(await books.fetchval("select gateway.forget_meters_at($1)", when))

    assert await forget(datetime(2031, 4, 30, tzinfo=UTC)) == 2, "what never had a call, and is nobody's"
    assert await forget(datetime(2031, 5, 1, tzinfo=UTC)) == 1
    left = {row[0] for row in await books.fetch("select subject_id from gateway.meters")}
    assert left == {stays, running}
    await books.execute("update gateway.meters set in_flight = 0 where subject_id = $1", running)
    assert await forget(datetime(2031, 5, 1, 23, tzinfo=UTC)) == 0, "once a day"
    assert await forget(datetime(2031, 5, 2, tzinfo=UTC)) == 1
    assert (await reported(books))[NOON.date()] == (3, 21, 300), "what they spent stays"


async def test_many_at_once_add_a_day_up_once_while_calls_go_on(books_url: str, books: asyncpg.Connection) -> None:
    user_id = await new_user(books, TestLimits())
    await keep(books, NOON)
    for _ in range(5):
        await call(books, user_id, NOON)
    keepers = [await asyncpg.connect(books_url) for _ in range(4)]
    caller = await asyncpg.connect(books_url)

    async def keep_until_done(connection: asyncpg.Connection) -> list[str]:
        steps: list[str] = []
        for _ in range(12):
            steps += await keep(connection, NOON + DAY)
        return steps

    async def go_on_calling() -> None:
        for _ in range(20):
            await call(caller, user_id, NOON + DAY)

    try:
        *steps, _ = await asyncio.gather(*(keep_until_done(keeper) for keeper in keepers), go_on_calling())
    finally:
        for connection in (*keepers, caller):
            await connection.close()
    assert sum((one or []).count("added up usage_20310310") for one in steps) == 1
    assert await reported(books) == {NOON.date(): (5, 35, 500), (NOON + DAY).date(): (20, 140, 2000)}


async def test_whoever_is_in_the_way_is_not_waited_for(books_url: str, books: asyncpg.Connection) -> None:
    await keep(books, NOON)
    reader = await asyncpg.connect(books_url)
    try:
        async with reader.transaction():
            await reader.fetch("select * from gateway.usage")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await books.fetchval("select gateway.upkeep_at($1)", NOON + DAY)
        assert "added up usage_20310310" in await keep(books, NOON + DAY)
    finally:
        await reader.close()
