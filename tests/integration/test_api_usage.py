"""GET /v1/usage: added up as asked, page by page; one's own, a workspace's for who runs it, and nobody else's."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from api.http.pagination import seal
from tests.support.api_client import api_as, refusal
from tests.support.api_server import ApiServer
from tests.support.callers import Caller, call_function, make_team, new_caller
from tests.support.stack import RunningStack

Json = dict[str, Any]  # rows of sums

pytestmark = pytest.mark.usefixtures("one_day")

ZERO = {
    "day": None,
    "user_id": None,
    "key_id": None,
    "model": None,
    "estimated_calls": 0,
    "cache_write_tokens": 0,
    "reasoning_tokens": 0,
    "images": 0,
}


def noon() -> datetime:
    """Of today."""
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


async def add_usage(
    database: asyncpg.Connection,
    user_id: UUID,
    *,
    days_ago: int = 0,
    model: str = "test/a",
    state: str = "settled",
    key_id: UUID | None = None,
    workspace_id: UUID | None = None,
) -> None:
    """One finished call of 12 prompt tokens (2 of them cached), 30 of output and 500 nano-dollars."""
    free = state == "voided"
    await database.execute(
        """
        insert into gateway.usage (
            request_id, settled_at, held_at, user_id, key_id, workspace_id, state, outcome, estimated, model,
            input_tokens, cached_input_tokens, cache_write_5m_tokens, output_tokens, reasoning_tokens, cost_nano_usd,
            held_tokens, held_nano_usd
        )
        values ($1, $2, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 100, 100)
        """,
        uuid4().hex,
        noon() - timedelta(days=days_ago),
        user_id,
        key_id,
        workspace_id,
        state,
        {"settled": "ok", "voided": None, "expired": "unknown"}[state],
        state == "expired",
        model,
        *((0, 0, 0, 0, 0, 0) if free else (7, 2, 3, 10, 20, 500)),
    )


async def add_day(database: asyncpg.Connection, user_id: UUID, *, days_ago: int, calls: int) -> None:
    """A day that is added up already, of that many such calls."""
    await database.execute(
        """
        insert into gateway.usage_daily (
            day, user_id, model, endpoint, calls, estimated_calls, input_tokens, cached_input_tokens,
            cache_write_5m_tokens, cache_write_1h_tokens, input_audio_tokens, output_tokens, reasoning_tokens,
            output_audio_tokens, images, cost_nano_usd
        )
        select $1, $2, 'test/a', 'chat', n, 0, n * 7, n * 2, n * 3, 0, 0, n * 10, n * 20, 0, 0, n * 500
        from (select $3::bigint as n) as calls
        """,
        (noon() - timedelta(days=days_ago)).date(),
        user_id,
        calls,
    )


def sums(calls: int, **columns: object) -> Json:
    """What `calls` such calls add up to."""
    figures = {
        "calls": calls,
        "input_tokens": 10 * calls,
        "cached_input_tokens": 2 * calls,
        "cache_write_tokens": 3 * calls,
        "output_tokens": 30 * calls,
        "reasoning_tokens": 20 * calls,
        "cost_nano_usd": 500 * calls,
    }
    return {**ZERO, **figures, **columns}


def day(days_ago: int) -> str:
    return str((noon() - timedelta(days=days_ago)).date())


@pytest.fixture
async def api(api_server: ApiServer, caller: Caller) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, caller) as client:
        yield client


async def usage(api: httpx.AsyncClient, **query: object) -> list[Json]:
    response = await api.get("/v1/usage", params={name: str(value) for name, value in query.items()})
    assert response.status_code == 200, response.text
    return list(response.json()["data"])


async def test_calls_are_added_up_by_day_and_model(
    api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    await add_usage(database, caller.user_id)
    await add_usage(database, caller.user_id, state="expired")
    await add_usage(database, caller.user_id, state="voided")
    await add_usage(database, caller.user_id, model="test/b")
    await add_usage(database, caller.user_id, days_ago=1)
    assert await usage(api) == [
        sums(2, day=day(0), model="test/a", estimated_calls=1),
        sums(1, day=day(0), model="test/b"),
        sums(1, day=day(1), model="test/a"),
    ]


async def test_days_that_are_added_up_and_days_that_are_not_are_one_report(
    api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    await add_usage(database, caller.user_id)
    await add_usage(database, caller.user_id, days_ago=1)
    await add_day(database, caller.user_id, days_ago=1, calls=5)  # a call that was settled late
    await add_day(database, caller.user_id, days_ago=2, calls=7)
    assert await usage(api) == [
        sums(1, day=day(0), model="test/a"),
        sums(6, day=day(1), model="test/a"),
        sums(7, day=day(2), model="test/a"),
    ]
    assert await usage(api, group_by="model") == [sums(14, model="test/a")]
    assert await usage(api, group_by="") == [sums(14)]


async def test_usage_by_key_tells_keys_apart_from_signing_in(
    api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    key_id = uuid4()
    await add_usage(database, caller.user_id, key_id=key_id)
    await add_usage(database, caller.user_id, key_id=key_id, model="test/b")
    await add_usage(database, caller.user_id)
    assert await usage(api, group_by="key") == [sums(1), sums(2, key_id=str(key_id))]


async def test_a_workspaces_usage_is_everybodys_for_who_runs_it_and_ones_own_for_others(
    stack: RunningStack, database: asyncpg.Connection, api_server: ApiServer
) -> None:
    team = await make_team(stack, database)
    await add_usage(database, team.member.user_id, workspace_id=team.workspace_id)
    await add_usage(database, team.owner.user_id, workspace_id=team.workspace_id)
    await add_usage(database, team.member.user_id)

    async def seen_by(who: Caller) -> dict[str, int]:
        async with api_as(api_server, who) as api:
            rows = await usage(api, workspace_id=team.workspace_id, group_by="user")
        return {row["user_id"]: row["calls"] for row in rows}

    everybodys = {str(team.member.user_id): 1, str(team.owner.user_id): 1}
    assert await seen_by(team.owner) == await seen_by(team.admin) == everybodys
    assert await seen_by(team.member) == {str(team.member.user_id): 1}
    assert await seen_by(team.viewer) == {}
    async with api_as(api_server, team.stranger) as stranger:
        refused = await stranger.get("/v1/usage", params={"workspace_id": str(team.workspace_id)})
    assert refusal(refused) == (404, "workspace_not_found")


async def test_nobody_sees_what_others_used(
    stack: RunningStack, database: asyncpg.Connection, api: httpx.AsyncClient, caller: Caller
) -> None:
    await add_usage(database, (await new_caller(stack, database)).user_id)
    assert await usage(api) == []
    for after in ({"user_id": str(uuid4())}, {"day": "2000-01-01", "calls": 5}):
        answer = await call_function(stack, caller, "usage_report", after=after)
        assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize("group_by", ["day,model", "model", "key", "key,model,day,user"])
async def test_pages_join_up_without_gap_or_overlap(
    group_by: str, api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    for key_id in (None, uuid4(), uuid4()):
        for days_ago, model in ((0, "test/a"), (0, "test/B"), (1, "test/c"), (2, "test/a")):
            await add_usage(database, caller.user_id, days_ago=days_ago, model=model, key_id=key_id)
    whole = await usage(api, group_by=group_by)
    paged: list[Json] = []
    cursor: str | None = None
    while True:
        query: dict[str, str | int] = {"group_by": group_by, "limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await api.get("/v1/usage", params=query)).json()
        assert len(page["data"]) <= 2
        paged += page["data"]
        cursor = page["meta"]["next_cursor"]
        if cursor is None:
            break
    assert paged == whole
    assert sum(row["calls"] for row in whole) == 12


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        seal("keys", "[]"),
        seal("usage", "[]"),
        seal("usage", "{}"),
        seal("usage", '["2026-01-01"]'),
        seal("usage", '["2026-01-01", null]'),
        seal("usage", '["tomorrow", "test/a"]'),
        seal("usage", '[5, "test/a"]'),
        seal("usage", '["2026-01-01", "test/a", "more"]'),
        seal("usage", "[" * 100),
    ],
)
async def test_a_cursor_that_is_not_of_this_list_is_refused(cursor: str, api: httpx.AsyncClient) -> None:
    assert refusal(await api.get("/v1/usage", params={"cursor": cursor})) == (400, "invalid_cursor")


async def test_a_cursor_of_another_grouping_is_refused(
    api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    for model in ("test/a", "test/b"):
        await add_usage(database, caller.user_id, model=model)
    page = (await api.get("/v1/usage", params={"group_by": "model", "limit": 1})).json()
    response = await api.get("/v1/usage", params={"cursor": page["meta"]["next_cursor"]})
    assert refusal(response) == (400, "invalid_cursor")


@pytest.mark.parametrize("group_by", ["hour", "day,", "day, model", "user_id", "day;drop table", "x" * 50])
async def test_what_usage_is_not_grouped_by_is_refused(group_by: str, api: httpx.AsyncClient) -> None:
    assert refusal(await api.get("/v1/usage", params={"group_by": group_by})) == (400, "invalid_parameter")


async def test_days_are_inclusive_and_reach_back_a_year_at_most(
    stack: RunningStack, api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    for days_ago in (0, 5, 29, 30, 366, 367):
        await add_usage(database, caller.user_id, days_ago=days_ago)
    today = noon().date()

    def days(rows: list[Json]) -> list[int]:
        return [(today - date.fromisoformat(row["day"])).days for row in rows]

    assert days(await usage(api)) == [0, 5, 29]
    assert days(await usage(api, since=today - timedelta(days=30), until=today - timedelta(days=5))) == [5, 29, 30]
    long = {"since": str(today - timedelta(days=367)), "until": str(today)}
    assert refusal(await api.get("/v1/usage", params=long)) == (400, "invalid_parameter")
    past_the_api = await call_function(stack, caller, "usage_report", since="2000-01-01", until=str(today))
    assert days(past_the_api.json()) == [0, 5, 29, 30, 366]


@pytest.mark.parametrize(("page_size", "rows"), [(0, 1), (-5, 1), (10**6, 101)])
async def test_past_the_api_a_page_has_between_one_and_a_hundred_and_one_rows(
    page_size: int, rows: int, stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    for number in range(102):
        await add_usage(database, caller.user_id, model=f"test/{number:03d}")
    answer = await call_function(stack, caller, "usage_report", page_size=page_size)
    assert len(answer.json()) == rows


async def test_usage_of_nobody_yet_is_an_empty_page(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/usage")).json() == {"data": [], "meta": {"next_cursor": None, "count": None}}
