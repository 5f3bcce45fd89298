"""api.usage_summary through PostgREST: everybody sees their own usage, page by page, and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.callers import ANONYMOUS, Caller, new_caller, rest
from tests.support.stack import RunningStack

TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


async def add_usage(
    database: asyncpg.Connection,
    user_id: UUID,
    *,
    days_ago: int = 0,
    model: str = "test/a",
    state: str = "settled",
    cost_nano_usd: int = 500,
) -> None:
    free = state == "voided"
    await database.execute(
        """
        insert into gateway.usage (
            request_id, settled_at, held_at, user_id, state, outcome, estimated, model,
            input_tokens, cached_input_tokens, output_tokens, cost_nano_usd, held_tokens, held_nano_usd
        )
        values ($1, $2, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 100, $11)
        """,
        uuid4().hex,
        TODAY - timedelta(days=days_ago),
        user_id,
        state,
        {"settled": "ok", "voided": None, "expired": "unknown"}[state],
        state == "expired",
        model,
        0 if free else 10,
        0 if free else 2,
        0 if free else 30,
        0 if free else cost_nano_usd,
    )


async def summary(stack: RunningStack, caller: Caller, **arguments: object) -> list[dict[str, Any]]:
    async with rest(stack, caller) as client:
        response = await client.post("/rpc/usage_summary", json=arguments)
    assert response.status_code == 200, response.text
    return list(response.json())


async def test_calls_are_added_up_by_day_and_model(stack: RunningStack, database: asyncpg.Connection) -> None:
    caller = await new_caller(stack, database)
    await add_usage(database, caller.user_id)
    await add_usage(database, caller.user_id, state="expired")
    await add_usage(database, caller.user_id, state="voided")
    await add_usage(database, caller.user_id, model="test/b")
    await add_usage(database, caller.user_id, days_ago=1)
    rows = await summary(stack, caller)
    yesterday = str((TODAY - timedelta(days=1)).date())
    assert [(row["day"], row["model"]) for row in rows] == [
        (str(TODAY.date()), "test/a"),
        (str(TODAY.date()), "test/b"),
        (yesterday, "test/a"),
    ]
    assert rows[0] == {
        "day": str(TODAY.date()),
        "model": "test/a",
        "calls": 2,
        "estimated_calls": 1,
        "input_tokens": 20,
        "cached_input_tokens": 4,
        "output_tokens": 60,
        "cost_nano_usd": 1000,
    }


async def test_nobody_sees_what_others_used(stack: RunningStack, database: asyncpg.Connection) -> None:
    caller, stranger = await new_caller(stack, database), await new_caller(stack, database)
    await add_usage(database, caller.user_id)
    assert await summary(stack, stranger) == []
    async with rest(stack, ANONYMOUS) as client:
        response = await client.post("/rpc/usage_summary", json={})
    assert response.status_code in (401, 403)


async def test_pages_join_up_without_gap_or_overlap(stack: RunningStack, database: asyncpg.Connection) -> None:
    caller = await new_caller(stack, database)
    for days_ago in range(3):
        for model in ("test/a", "test/B", "test/c"):
            await add_usage(database, caller.user_id, days_ago=days_ago, model=model)
    whole = await summary(stack, caller)
    paged: list[dict[str, Any]] = []
    position: dict[str, object] = {}
    while page := await summary(stack, caller, page_size=2, **position):
        assert len(page) <= 2
        paged += page
        position = {"after_day": page[-1]["day"], "after_model": page[-1]["model"]}
    assert len(whole) == 9
    assert paged == whole


async def test_days_are_inclusive_and_reach_back_a_year_at_most(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    caller = await new_caller(stack, database)
    for days_ago in (0, 5, 29, 30, 366, 367):
        await add_usage(database, caller.user_id, days_ago=days_ago)
    today = TODAY.date()

    async def days(**arguments: object) -> list[int]:
        rows = await summary(stack, caller, **arguments)
        return [(today - datetime.fromisoformat(row["day"]).date()).days for row in rows]

    assert await days() == [0, 5, 29]
    assert await days(since=str(today - timedelta(days=30)), until=str(today - timedelta(days=5))) == [5, 29, 30]
    assert await days(since="2000-01-01", until=str(today)) == [0, 5, 29, 30, 366]


@pytest.mark.parametrize(("page_size", "rows"), [(0, 1), (-5, 1), (10**6, 100)])
async def test_a_page_has_between_one_and_a_hundred_rows(
    stack: RunningStack, database: asyncpg.Connection, page_size: int, rows: int
) -> None:
    caller = await new_caller(stack, database)
    for number in range(101):
        await add_usage(database, caller.user_id, model=f"test/{number:03d}")
    assert len(await summary(stack, caller, page_size=page_size)) == rows
