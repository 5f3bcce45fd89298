"""The rules of workspaces, as the functions keep them: who may change whom, and that an owner always remains."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.callers import Caller, Team, call_function, join, outcome, read_roles, rest
from tests.support.row_changes import read_rows
from tests.support.stack import RunningStack


async def personal_workspace(database: asyncpg.Connection, caller: Caller) -> UUID:
    query = "select id from api.workspaces where is_personal and created_by = $1"
    found = await database.fetchval(query, caller.user_id)
    assert isinstance(found, UUID)
    return found


# who changes whom into what
@pytest.mark.parametrize(
    ("actor", "subject", "new_role", "expected"),
    [
        ("owner", "admin", "owner", (200, None)),
        ("owner", "viewer", "admin", (200, None)),
        ("owner", "owner", "owner", (200, None)),
        ("owner", "owner", "admin", (409, "last_owner")),
        ("admin", "member", "admin", (200, None)),
        ("admin", "admin", "member", (200, None)),
        ("admin", "viewer", "owner", (403, "not_allowed")),
        ("admin", "admin", "owner", (403, "not_allowed")),
        ("admin", "owner", "viewer", (403, "not_allowed")),
        ("member", "member", "owner", (403, "not_allowed")),
        ("viewer", "viewer", "member", (403, "not_allowed")),
        ("owner", "stranger", "member", (404, "member_not_found")),
        ("stranger", "stranger", "owner", (404, "workspace_not_found")),
        ("owner", "member", "emperor", (400, "23514")),
        ("owner", "member", None, (400, "23502")),
    ],
)
async def test_roles_change_as_the_rules_say(  # noqa: PLR0917  (pytest passes by name)
    stack: RunningStack,
    database: asyncpg.Connection,
    team: Team,
    actor: str,
    subject: str,
    new_role: str | None,
    expected: tuple[int, str | None],
) -> None:
    before = await read_roles(database, team.workspace_id)
    person = team.callers[subject].user_id
    response = await call_function(
        stack,
        team.callers[actor],
        "change_member_role",
        workspace_id=team.workspace_id,
        user_id=person,
        role=new_role,
    )
    assert outcome(response) == expected
    changes = {person: new_role} if expected[0] == 200 else {}
    assert await read_roles(database, team.workspace_id) == {**before, **changes}
    if expected[0] == 200:
        assert (response.json()["user_id"], response.json()["role"]) == (str(person), new_role)


@pytest.mark.parametrize(
    ("actor", "subject", "expected"),
    [
        ("owner", "admin", (204, None)),
        ("owner", "owner", (409, "last_owner")),
        ("admin", "member", (204, None)),
        ("admin", "admin", (204, None)),
        ("admin", "owner", (403, "not_allowed")),
        ("member", "member", (204, None)),
        ("member", "viewer", (403, "not_allowed")),
        ("viewer", "owner", (403, "not_allowed")),
        ("owner", "stranger", (404, "member_not_found")),
        ("stranger", "stranger", (404, "workspace_not_found")),
    ],
)
async def test_members_leave_and_are_removed_as_the_rules_say(  # noqa: PLR0917  (pytest passes by name)
    stack: RunningStack,
    database: asyncpg.Connection,
    team: Team,
    actor: str,
    subject: str,
    expected: tuple[int, str | None],
) -> None:
    before = await read_roles(database, team.workspace_id)
    person = team.callers[subject].user_id
    response = await call_function(
        stack, team.callers[actor], "remove_member", workspace_id=team.workspace_id, user_id=person
    )
    assert outcome(response) == expected
    gone = {person} if expected[0] == 204 else set()
    after = await read_roles(database, team.workspace_id)
    assert after == {user_id: role for user_id, role in before.items() if user_id not in gone}


async def test_owner_leaves_once_there_is_another(
    stack: RunningStack, database: asyncpg.Connection, team: Team
) -> None:
    change: dict[str, Any] = {"workspace_id": team.workspace_id, "user_id": team.admin.user_id, "role": "owner"}
    assert outcome(await call_function(stack, team.owner, "change_member_role", **change)) == (200, None)
    leave = {"workspace_id": team.workspace_id, "user_id": team.owner.user_id}
    assert outcome(await call_function(stack, team.owner, "remove_member", **leave)) == (204, None)
    assert (await read_roles(database, team.workspace_id))[team.admin.user_id] == "owner"


@pytest.mark.parametrize("function", ["delete_workspace", "change_member_role", "remove_member"])
async def test_personal_workspace_stays_with_its_person_even_beside_another_owner(
    stack: RunningStack, database: asyncpg.Connection, team: Team, function: str
) -> None:
    workspace_id = await personal_workspace(database, team.owner)
    await join(database, workspace_id, team.admin, "owner")
    arguments: dict[str, dict[str, Any]] = {
        "delete_workspace": {},
        "change_member_role": {"user_id": team.owner.user_id, "role": "viewer"},
        "remove_member": {"user_id": team.owner.user_id},
    }
    before = await read_rows(database)
    for caller in (team.owner, team.admin):
        response = await call_function(stack, caller, function, workspace_id=workspace_id, **arguments[function])
        assert outcome(response) == (409, "personal_workspace")
    assert await read_rows(database) == before


async def test_refusal_is_a_sentence_and_says_nothing_internal(stack: RunningStack, team: Team) -> None:
    response = await call_function(
        stack, team.owner, "remove_member", workspace_id=team.workspace_id, user_id=team.owner.user_id
    )
    assert response.json() == {
        "code": "last_owner",
        "message": "A workspace needs an owner. Make another member its owner first.",
        "details": None,
        "hint": None,
    }


async def test_workspace_that_does_not_exist_looks_like_one_that_is_foreign(stack: RunningStack, team: Team) -> None:
    answers = [
        (await call_function(stack, team.stranger, "delete_workspace", workspace_id=workspace_id)).json()
        for workspace_id in (team.workspace_id, uuid4())
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", ["", " ", "a" * 101, "two\nlines", " left", "right ", "tab\t"])
async def test_names_are_one_line(stack: RunningStack, team: Team, name: str) -> None:
    assert outcome(await call_function(stack, team.owner, "create_workspace", name=name)) == (400, "23514")
    async with rest(stack, team.owner) as client:
        own = {"id": f"eq.{team.owner.user_id}"}
        for table, params, column in (
            ("workspaces", {"id": f"eq.{team.workspace_id}"}, "name"),
            ("profiles", own, "display_name"),
        ):
            response = await client.patch(f"/{table}", params=params, json={column: name})
            assert outcome(response) == (400, "23514"), table


@pytest.mark.parametrize("name", ["a", "a" * 100, "Zoë & Søn", "研究室", "👩‍🔬 lab"])
async def test_names_of_every_script_are_kept_as_they_are(stack: RunningStack, team: Team, name: str) -> None:
    response = await call_function(stack, team.owner, "create_workspace", name=name)
    assert (response.status_code, response.json()["name"]) == (200, name)


async def test_edit_gives_a_row_a_later_version_and_nothing_else_does(
    stack: RunningStack, database: asyncpg.Connection, team: Team
) -> None:
    async def edit(name: str) -> str:
        async with rest(stack, team.owner) as client:
            params = {"id": f"eq.{team.workspace_id}"}
            headers = {"Prefer": "return=representation"}
            response = await client.patch("/workspaces", params=params, json={"name": name}, headers=headers)
        return str(response.json()[0]["updated_at"])

    first, same, second = await edit("A"), await edit("A"), await edit("B")
    assert first == same != second
    assert await database.fetchval("select $1::text::timestamptz < $2::text::timestamptz", first, second)
