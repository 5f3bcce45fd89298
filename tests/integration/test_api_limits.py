"""GET /v1/limits: each limit as it stands now, of oneself, a key or a workspace, and of nobody else."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from tests.support.api_client import api_as, refusal
from tests.support.api_keys import new_key
from tests.support.api_server import ApiServer
from tests.support.callers import Caller, Team
from tests.support.stack import RunningStack

pytestmark = pytest.mark.usefixtures("one_day")

Json = dict[str, Any]  # limits
NAMES = [
    "requests_per_minute",
    "tokens_per_minute",
    "calls_in_flight",
    "tokens_per_day",
    "nano_usd_per_day",
    "nano_usd_per_month",
]


@pytest.fixture
async def api(api_server: ApiServer, caller: Caller) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, caller) as client:
        yield client


async def subjects(api: httpx.AsyncClient, **query: UUID) -> list[Json]:
    response = await api.get("/v1/limits", params={name: str(value) for name, value in query.items()})
    assert response.status_code == 200, response.text
    return list(response.json()["data"])


def by_name(subject: Json) -> dict[str, Json]:
    assert [limit["name"] for limit in subject["limits"]] == NAMES
    return {limit["name"]: limit for limit in subject["limits"]}


async def set_limits(database: asyncpg.Connection, scope: str, subject_id: UUID, limit: int | None) -> None:
    """Each of the six is this."""
    await database.execute(
        f"insert into gateway.limits (scope, subject_id, {', '.join(NAMES)})"
        " select $1, $2, one, one, one, one, one, one from (select $3::bigint as one) as limits",
        scope,
        subject_id,
        limit,
    )


async def set_meter(database: asyncpg.Connection, scope: str, subject_id: UUID, *, day: datetime) -> None:
    """Used up to `day`: 3 calls are running, which hold 20 tokens and 30 nano-dollars; 40, 50 and 60 are settled."""
    await database.execute(
        """
        insert into gateway.meters (
            scope, subject_id, in_flight, held_tokens, held_nano_usd, day, day_tokens, day_nano_usd, month,
            month_nano_usd
        )
        values ($1, $2, 3, 20, 30, $3::date, 40, 50, date_trunc('month', $3::date), 60)
        """,
        scope,
        subject_id,
        day.date(),
    )


async def test_before_the_first_call_everything_of_the_plan_remains(
    api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    [mine] = await subjects(api)
    assert (mine["scope"], mine["id"]) == ("user", str(caller.user_id))
    plan = (await database.fetch("select * from gateway.plans where is_default"))[0]
    for name, limit in by_name(mine).items():
        assert (limit["limit"], limit["used"], limit["held"], limit["remaining"]) == (plan[name], 0, 0, plan[name])


async def test_what_is_settled_is_used_and_what_is_running_is_held(
    api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    await set_limits(database, "user", caller.user_id, 100)
    now = datetime.now(UTC)
    await set_meter(database, "user", caller.user_id, day=now)
    limits = by_name((await subjects(api))[0])

    def figures(name: str) -> tuple[int, int, int]:
        return limits[name]["used"], limits[name]["held"], limits[name]["remaining"]

    assert figures("calls_in_flight") == (3, 0, 97)
    assert figures("tokens_per_day") == (40, 20, 40)
    assert figures("nano_usd_per_day") == (50, 30, 20)
    assert figures("nano_usd_per_month") == (60, 30, 10)
    tomorrow = (now + timedelta(days=1)).date()
    assert datetime.fromisoformat(limits["tokens_per_day"]["resets_at"]) == datetime(
        tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=UTC
    )
    next_month = (now.replace(day=1) + timedelta(days=32)).replace(day=1).date()
    assert datetime.fromisoformat(limits["nano_usd_per_month"]["resets_at"]).date() == next_month
    assert limits["calls_in_flight"]["resets_at"] is None


async def test_debt_leaves_nothing_and_is_shown(
    api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    await set_limits(database, "user", caller.user_id, 10)
    await set_meter(database, "user", caller.user_id, day=datetime.now(UTC))
    limits = by_name((await subjects(api))[0])
    assert (limits["nano_usd_per_day"]["used"], limits["nano_usd_per_day"]["remaining"]) == (50, 0)


async def test_a_day_and_a_month_that_are_over_are_not_used(
    api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection
) -> None:
    await set_limits(database, "user", caller.user_id, 100)
    await set_meter(database, "user", caller.user_id, day=datetime.now(UTC) - timedelta(days=32))
    limits = by_name((await subjects(api))[0])
    assert [limits[name]["used"] for name in NAMES[3:]] == [0, 0, 0]
    assert [limits[name]["held"] for name in NAMES[3:]] == [20, 30, 30]  # still running


async def test_a_rate_refills_steadily(api: httpx.AsyncClient, caller: Caller, database: asyncpg.Connection) -> None:
    """60 a minute, the last of which is there again in half a minute: 30 are used, or 29 a moment later."""
    await set_limits(database, "user", caller.user_id, 60)
    await database.execute(
        """
        insert into gateway.meters (scope, subject_id, requests_tat_ns, requests_limit)
        values ('user', $1, (extract(epoch from now() + interval '30 seconds') * 1000000)::bigint * 1000, 60)
        """,
        caller.user_id,
    )
    rate = by_name((await subjects(api))[0])["requests_per_minute"]
    assert 0 < rate["used"] <= 30
    assert rate["remaining"] == 60 - rate["used"]
    until_reset = datetime.fromisoformat(rate["resets_at"]) - datetime.now(UTC)
    assert until_reset < timedelta(seconds=31)


async def test_zero_forbids_and_null_is_no_limit(
    api: httpx.AsyncClient, caller: Caller, stack: RunningStack, database: asyncpg.Connection
) -> None:
    await set_limits(database, "user", caller.user_id, 0)
    key = await new_key(stack, database, caller)
    mine, of_key = await subjects(api)
    assert {limit["remaining"] for limit in mine["limits"]} == {0}
    assert (of_key["scope"], of_key["id"]) == ("key", str(key.id))
    assert {(limit["limit"], limit["remaining"]) for limit in of_key["limits"]} == {(None, None)}


async def test_ones_keys_that_live_are_shown_and_one_alone_where_asked(
    api: httpx.AsyncClient, caller: Caller, stack: RunningStack, database: asyncpg.Connection
) -> None:
    keys = [await new_key(stack, database, caller) for _ in range(3)]
    await database.execute("update gateway.api_keys set revoked_at = now() where id = $1", keys[1].id)
    await set_limits(database, "key", keys[2].id, 7)
    found = await subjects(api)
    assert [subject["id"] for subject in found] == [str(caller.user_id), str(keys[0].id), str(keys[2].id)]
    [one] = await subjects(api, key_id=keys[2].id)
    assert one == found[2]
    assert {limit["limit"] for limit in one["limits"]} == {7}
    both = await api.get("/v1/limits", params={"key_id": str(keys[0].id), "workspace_id": str(uuid4())})
    assert refusal(both) == (400, "invalid_parameter")


async def test_a_workspaces_limits_are_its_members_business(
    api_server: ApiServer, stack: RunningStack, database: asyncpg.Connection, team: Team
) -> None:
    await set_limits(database, "workspace", team.workspace_id, 100)
    await set_meter(database, "workspace", team.workspace_id, day=datetime.now(UTC))
    for name in ("owner", "admin", "member", "viewer"):
        async with api_as(api_server, team.callers[name]) as api:
            [found] = await subjects(api, workspace_id=team.workspace_id)
        assert (found["scope"], found["id"]) == ("workspace", str(team.workspace_id))
        assert by_name(found)["nano_usd_per_month"]["remaining"] == 10
    async with api_as(api_server, team.stranger) as api:
        for workspace_id in (team.workspace_id, uuid4()):
            refused = await api.get("/v1/limits", params={"workspace_id": str(workspace_id)})
            assert refusal(refused) == (404, "workspace_not_found")


async def test_a_keys_limits_are_shown_to_its_person_and_to_who_runs_its_workspace(
    api_server: ApiServer, stack: RunningStack, database: asyncpg.Connection, team: Team
) -> None:
    key = await new_key(stack, database, team.member, workspace_id=team.workspace_id)
    private = await new_key(stack, database, team.member)
    statuses = {}
    for name in ("owner", "admin", "member", "viewer", "stranger"):
        async with api_as(api_server, team.callers[name]) as api:
            answers = [await api.get("/v1/limits", params={"key_id": str(one.id)}) for one in (key, private)]
        statuses[name] = (answers[0].status_code, answers[1].status_code)
    assert statuses == {
        "owner": (200, 404),
        "admin": (200, 404),
        "member": (200, 200),
        "viewer": (404, 404),
        "stranger": (404, 404),
    }
