"""A workspace's settings for calls to models, and the calls it keeps; who may what is in test_api_matrix.py."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from tests.support.api_client import api_as, refusal
from tests.support.api_server import MODEL, ApiServer
from tests.support.callers import Caller, Team
from tests.support.eventually import eventually

DEFAULTS = {"models": None, "redact": False, "redact_answers": False, "store_content": False, "store_days": 30}


async def change(server: ApiServer, caller: Caller, workspace_id: UUID, **changes: object) -> dict[str, object]:
    async with api_as(server, caller) as api:
        response = await api.patch(f"/v1/workspaces/{workspace_id}/llm", json=changes)
    assert response.status_code == 200, response.text
    data: dict[str, object] = response.json()["data"]
    return {name: value for name, value in data.items() if name != "updated_at"}


async def store(database: asyncpg.Connection, team: Team, count: int = 1) -> None:
    """So many calls are kept, a second apart; the workspace wants that."""
    await database.execute(
        "insert into gateway.stored_contents (workspace_id, created_at, expires_at, call_id, user_id, endpoint,"
        " model, is_stream, is_cut, request, answer) select $1, now() - n * interval '1 second',"
        " now() + interval '30 days', 'call_' || n, $2, 'chat', 'm', false, false, '{}', '{}'"
        " from generate_series(0, $3 - 1) as n",
        team.workspace_id,
        team.member.user_id,
        count,
    )


async def stored(database: asyncpg.Connection, team: Team) -> int:
    query = "select count(*) from gateway.stored_contents where workspace_id = $1"
    return int(await database.fetchval(query, team.workspace_id))


async def test_settings_are_at_their_defaults_until_somebody_changes_them(api_server: ApiServer, team: Team) -> None:
    async with api_as(api_server, team.viewer) as api:
        data = (await api.get(f"/v1/workspaces/{team.workspace_id}/llm")).json()["data"]
    assert {name: data[name] for name in DEFAULTS} == DEFAULTS


async def test_a_change_leaves_what_it_does_not_name(api_server: ApiServer, team: Team) -> None:
    first = await change(api_server, team.admin, team.workspace_id, redact=True, models=["b", "a", "a"])
    assert first == {**DEFAULTS, "redact": True, "models": ["a", "b"]}
    second = await change(api_server, team.owner, team.workspace_id, store_days=7)
    assert second == {**first, "store_days": 7}
    third = await change(api_server, team.owner, team.workspace_id, redact=False, models=None)
    assert third == {**DEFAULTS, "store_days": 7}
    fourth = await change(api_server, team.owner, team.workspace_id, models=[])
    assert fourth == {**third, "models": []}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, ""),
        ({"redact": "yes"}, "redact"),
        ({"redact": None}, "redact"),
        ({"store_days": 0}, "store_days"),
        ({"store_days": 366}, "store_days"),
        ({"models": ["has space"]}, "models.0"),
        ({"models": [None]}, "models.0"),
        ({"models": "a"}, "models"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_named(
    api_server: ApiServer, team: Team, changes: dict[str, object], field: str
) -> None:
    async with api_as(api_server, team.owner) as api:
        response = await api.patch(f"/v1/workspaces/{team.workspace_id}/llm", json=changes)
    assert refusal(response) == (422, "validation_failed")
    assert [one["field"] for one in response.json()["error"]["details"]["fields"]] == [field]


async def test_a_change_counts_for_the_next_call_within_a_second(
    api_server: ApiServer, team: Team, database: asyncpg.Connection
) -> None:
    headers = {"x-buttress-workspace": str(team.workspace_id)}
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 10}
    async with api_as(api_server, team.member) as api:
        assert (await api.post("/llm/v1/chat/completions", json=ask, headers=headers)).status_code == 200
        await change(api_server, team.owner, team.workspace_id, models=["another"])

        async def refused() -> bool:
            answer = await api.post("/llm/v1/chat/completions", json=ask, headers=headers)
            return answer.status_code == 403

        await eventually(refused)
        assert (await api.post("/llm/v1/chat/completions", json=ask)).status_code == 200  # their own calls are theirs


async def test_turning_it_off_deletes_what_was_kept(
    api_server: ApiServer, team: Team, database: asyncpg.Connection
) -> None:
    await change(api_server, team.owner, team.workspace_id, store_content=True)
    await store(database, team, 2)
    await change(api_server, team.owner, team.workspace_id, redact=True)
    assert await stored(database, team) == 2
    await change(api_server, team.owner, team.workspace_id, store_content=False)
    assert await stored(database, team) == 0


async def test_another_time_to_keep_holds_for_what_is_kept_already(
    api_server: ApiServer, team: Team, database: asyncpg.Connection
) -> None:
    await change(api_server, team.owner, team.workspace_id, store_content=True)
    await store(database, team)
    await change(api_server, team.owner, team.workspace_id, store_days=2)
    query = "select expires_at - created_at from gateway.stored_contents where workspace_id = $1"
    assert (await database.fetchval(query, team.workspace_id)).days == 2


async def test_kept_calls_are_listed_newest_first_page_by_page(
    api_server: ApiServer, team: Team, database: asyncpg.Connection
) -> None:
    await store(database, team, 5)
    listed: list[str] = []
    cursor: str | None = None
    async with api_as(api_server, team.admin) as api:
        while True:
            query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
            page = (await api.get(f"/v1/workspaces/{team.workspace_id}/llm/calls", params=query)).json()
            listed += [call["call_id"] for call in page["data"]]
            cursor = page["meta"]["next_cursor"]
            if cursor is None:
                break
    assert listed == [f"call_{number}" for number in range(5)]


async def test_what_has_expired_is_seen_by_nobody_and_then_gone(
    api_server: ApiServer, team: Team, database: asyncpg.Connection
) -> None:
    await store(database, team, 2)
    await database.execute(
        "update gateway.stored_contents set expires_at = now() where workspace_id = $1 and call_id = 'call_0'",
        team.workspace_id,
    )
    async with api_as(api_server, team.owner) as api:
        page = (await api.get(f"/v1/workspaces/{team.workspace_id}/llm/calls")).json()
    assert [call["call_id"] for call in page["data"]] == ["call_1"]
    await database.fetchval("select gateway.sweep_contents()")
    assert await stored(database, team) == 1


async def test_nothing_is_kept_for_a_workspace_that_does_not_want_it_at_that_moment(
    team: Team, database: asyncpg.Connection
) -> None:
    """Whatever a process still believes: the database asks the settings itself."""
    query = "select gateway.store_content($1, 'c', $2, 'chat', 'm', false, false, '{}', '{}')"
    assert await database.fetchval(query, team.workspace_id, team.member.user_id) is False
    assert await stored(database, team) == 0


async def test_settings_and_kept_calls_go_with_their_workspace(team: Team, database: asyncpg.Connection) -> None:
    await database.execute("insert into gateway.workspace_settings (workspace_id) values ($1)", team.workspace_id)
    await store(database, team)
    await database.execute("delete from api.workspaces where id = $1", team.workspace_id)
    assert await stored(database, team) == 0
