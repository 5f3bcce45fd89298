"""Who may do what straight against PostgREST: each kind of caller, on each table, with each verb, and each function.

Each test also compares every row of schema api before and after, so that nothing of anybody else's changes unseen.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.callers import Caller, Team, make_team, rest
from tests.support.row_changes import TABLES, Row, changed_rows, read_rows
from tests.support.stack import RunningStack

CALLERS = ["owner", "admin", "member", "viewer", "stranger", "anonymous"]
MEMBERS = ["owner", "admin", "member", "viewer"]

Json = dict[str, Any]  # a row or a body as PostgREST takes and gives it: values of any JSON type


@dataclass(frozen=True)
class Visit:
    """One caller at PostgREST's door, and the team whose rows are behind it."""

    name: str
    team: Team
    client: httpx.AsyncClient
    database: asyncpg.Connection

    @property
    def caller(self) -> Caller:
        return self.team.callers[self.name]

    def is_refused(self, response: httpx.Response) -> bool:
        """Refused for lack of a grant: 401 to whoever has not said who they are, else 403."""
        expected = 401 if self.name == "anonymous" else 403
        return bool(response.status_code == expected and response.json()["code"] == "42501")

    async def personal_workspace_of(self, caller: Caller) -> str:
        query = "select id from api.workspaces where is_personal and created_by = $1"
        return str(await self.database.fetchval(query, caller.user_id))


@pytest.fixture
async def team(stack: RunningStack, database: asyncpg.Connection) -> Team:
    await make_team(stack, database)  # another one, which must never be seen or touched
    return await make_team(stack, database)


@pytest.fixture(params=CALLERS)
async def visit(
    request: pytest.FixtureRequest, stack: RunningStack, database: asyncpg.Connection, team: Team
) -> AsyncIterator[Visit]:
    name = str(request.param)
    async with rest(stack, team.callers[name]) as client:
        yield Visit(name, team, client, database)


async def test_matrix_covers_every_table_and_function(database: asyncpg.Connection) -> None:
    tables = await database.fetch(
        "select relname from pg_class where relnamespace = 'api'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')"
    )
    functions = await database.fetch("select proname from pg_proc where pronamespace = 'api'::regnamespace")
    assert {row["relname"] for row in tables} == TABLES
    assert {row["proname"] for row in functions} == set(RPCS)


# --- reading


async def expected_rows(visit: Visit) -> dict[str, set[str]]:
    """What the caller should see, worked out from the team and not from the policies."""
    own = await visit.personal_workspace_of(visit.caller)
    team_id = visit.team.workspace_id
    fellows = [visit.team.callers[name].user_id for name in MEMBERS]
    is_member = visit.name in MEMBERS
    return {
        "profiles": {str(user_id) for user_id in (fellows if is_member else [visit.caller.user_id])},
        "workspaces": {own, *([str(team_id)] if is_member else [])},
        "members": {
            f"{own} {visit.caller.user_id}",
            *([f"{team_id} {user_id}" for user_id in fellows] if is_member else []),
        },
    }


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_everybody_reads_exactly_what_is_theirs(visit: Visit, table: str) -> None:
    response = await visit.client.get(f"/{table}")
    if visit.name == "anonymous":
        assert visit.is_refused(response)
        return
    assert response.status_code == 200
    seen = {f"{row['workspace_id']} {row['user_id']}" if table == "members" else row["id"] for row in response.json()}
    assert seen == (await expected_rows(visit))[table]


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_asking_for_a_foreign_row_by_its_key_shows_nothing(visit: Visit, table: str) -> None:
    team = visit.team
    foreigner = team.stranger if visit.name in MEMBERS else team.owner
    keys = {
        "profiles": {"id": f"eq.{foreigner.user_id}"},
        "workspaces": {"id": f"eq.{await visit.personal_workspace_of(foreigner)}"},
        "members": {"user_id": f"eq.{foreigner.user_id}"},
    }
    response = await visit.client.get(f"/{table}", params=keys[table])
    assert visit.is_refused(response) if visit.name == "anonymous" else response.json() == []


async def test_embedding_does_not_lead_to_foreign_rows(team: Team, stack: RunningStack) -> None:
    async with rest(stack, team.viewer) as client:
        response = await client.get("/members", params={"select": "role,profiles(display_name)"})
    assert response.status_code == 200
    assert sorted((row["role"], row["profiles"]["display_name"]) for row in response.json()) == [
        ("admin", "Admin"), ("member", "Member"), ("owner", "Owner"), ("owner", "Viewer"), ("viewer", "Viewer"),
    ]  # fmt: skip


async def test_no_other_schema_is_exposed(visit: Visit) -> None:
    for schema in ("private", "gateway", "auth", "storage", "public", "supabase_migrations"):
        response = await visit.client.get("/members", headers={"Accept-Profile": schema})
        assert (response.status_code, response.json()["code"]) == (406, "PGRST106"), schema


# --- writing tables


def new_row(table: str, team: Team, caller: Caller) -> Json:
    """The row somebody would add who wants more than they have."""
    return {
        "profiles": {"id": str(uuid4()), "display_name": "Nobody"},
        "workspaces": {"name": "Mine", "created_by": str(caller.user_id)},
        "members": {"workspace_id": str(team.workspace_id), "user_id": str(caller.user_id), "role": "owner"},
    }[table]


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_nobody_inserts(visit: Visit, table: str) -> None:
    before = await read_rows(visit.database)
    response = await visit.client.post(f"/{table}", json=new_row(table, visit.team, visit.caller))
    assert visit.is_refused(response)
    assert await read_rows(visit.database) == before


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_nobody_upserts(visit: Visit, table: str) -> None:
    before = await read_rows(visit.database)
    rows = {
        "profiles": {"id": str(visit.caller.user_id), "display_name": "Other"},
        "workspaces": {"id": str(visit.team.workspace_id), "name": "Taken"},
        "members": new_row("members", visit.team, visit.caller),
    }
    for resolution in ("merge-duplicates", "ignore-duplicates"):
        headers = {"Prefer": f"resolution={resolution}"}
        assert visit.is_refused(await visit.client.post(f"/{table}", json=rows[table], headers=headers))
    assert await read_rows(visit.database) == before


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_nobody_deletes(visit: Visit, table: str) -> None:
    before = await read_rows(visit.database)
    filters = {
        "profiles": {"id": f"eq.{visit.caller.user_id}"},
        "workspaces": {"id": f"eq.{visit.team.workspace_id}"},
        "members": {"workspace_id": f"eq.{visit.team.workspace_id}"},
    }
    response = await visit.client.delete(f"/{table}", params=filters[table])
    assert visit.is_refused(response)
    assert await read_rows(visit.database) == before


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("profiles", {"id": "00000000-0000-0000-0000-000000000000"}),
        ("profiles", {"created_at": "2000-01-01T00:00:00Z"}),
        ("profiles", {"display_name": "Fine", "updated_at": "2000-01-01T00:00:00Z"}),
        ("workspaces", {"created_by": None}),
        ("workspaces", {"is_personal": True}),
        ("workspaces", {"name": "Fine", "is_personal": False}),
        ("members", {"role": "owner"}),
        ("members", {"user_id": "00000000-0000-0000-0000-000000000000"}),
    ],
)
async def test_nobody_updates_a_column_that_is_not_theirs_to_change(visit: Visit, table: str, change: Json) -> None:
    before = await read_rows(visit.database)
    filters = {
        "profiles": {"id": f"eq.{visit.caller.user_id}"},
        "workspaces": {"id": f"eq.{visit.team.workspace_id}"},
        "members": {"user_id": f"eq.{visit.caller.user_id}"},
    }
    response = await visit.client.patch(f"/{table}", params=filters[table], json=change)
    assert visit.is_refused(response)
    assert await read_rows(visit.database) == before


async def test_people_rename_themselves_and_nobody_else(visit: Visit) -> None:
    before = await read_rows(visit.database)
    everybody = {"id": "neq.00000000-0000-0000-0000-000000000000"}
    response = await visit.client.patch(
        "/profiles", params=everybody, json={"display_name": "New"}, headers={"Prefer": "return=representation"}
    )
    changed = changed_rows(before, await read_rows(visit.database))
    if visit.name == "anonymous":
        assert visit.is_refused(response)
        assert changed == set()
    else:
        assert response.status_code == 200
        assert changed == {Row("profiles", str(visit.caller.user_id))}


async def test_owners_and_admins_rename_their_workspaces_and_no_others(visit: Visit) -> None:
    before = await read_rows(visit.database)
    everything = {"id": "neq.00000000-0000-0000-0000-000000000000"}
    response = await visit.client.patch(
        "/workspaces", params=everything, json={"name": "New"}, headers={"Prefer": "return=representation"}
    )
    changed = changed_rows(before, await read_rows(visit.database))
    if visit.name == "anonymous":
        assert visit.is_refused(response)
        assert changed == set()
        return
    expected = {Row("workspaces", await visit.personal_workspace_of(visit.caller))}
    if visit.name in ("owner", "admin"):
        expected.add(Row("workspaces", str(visit.team.workspace_id)))
    assert response.status_code == 200
    assert changed == expected


# --- functions

# by function: the arguments, given the team; and by caller the status and, where refused, the code
ALLOWED: tuple[int, str | None] = (200, None)
DONE: tuple[int, str | None] = (204, None)
NOT_ALLOWED = (403, "not_allowed")
NOT_FOUND = (404, "workspace_not_found")
NO_SUCH_KEY: tuple[int, str | None] = (404, "key_not_found")  # what becomes of real ones is in test_api_keys.py
NOT_SIGNED_IN = (401, "42501")
RPCS: dict[str, dict[str, tuple[int, str | None]]] = {
    "create_workspace": dict.fromkeys([*MEMBERS, "stranger"], ALLOWED) | {"anonymous": NOT_SIGNED_IN},
    "delete_workspace": {
        "owner": DONE, "admin": NOT_ALLOWED, "member": NOT_ALLOWED, "viewer": NOT_ALLOWED,
        "stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN,
    },
    "change_member_role": {
        "owner": ALLOWED, "admin": ALLOWED, "member": NOT_ALLOWED, "viewer": NOT_ALLOWED,
        "stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN,
    },
    "remove_member": {
        "owner": DONE, "admin": DONE, "member": NOT_ALLOWED, "viewer": DONE,  # the viewer leaves
        "stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN,
    },
    "create_api_key": dict.fromkeys(["owner", "admin", "member"], ALLOWED)
    | {"viewer": NOT_ALLOWED, "stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN},
    "list_api_keys": dict.fromkeys([*MEMBERS, "stranger"], ALLOWED) | {"anonymous": NOT_SIGNED_IN},
    "update_api_key": dict.fromkeys([*MEMBERS, "stranger"], NO_SUCH_KEY) | {"anonymous": NOT_SIGNED_IN},
    "rotate_api_key": dict.fromkeys([*MEMBERS, "stranger"], NO_SUCH_KEY) | {"anonymous": NOT_SIGNED_IN},
    "revoke_api_key": dict.fromkeys([*MEMBERS, "stranger"], NO_SUCH_KEY) | {"anonymous": NOT_SIGNED_IN},
    "llm_settings": dict.fromkeys(MEMBERS, ALLOWED) | {"stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN},
    "change_llm_settings": dict.fromkeys(["owner", "admin"], ALLOWED)
    | dict.fromkeys(["member", "viewer"], NOT_ALLOWED)
    | {"stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN},
    "stored_calls": dict.fromkeys(["owner", "admin"], ALLOWED)
    | dict.fromkeys(["member", "viewer"], NOT_ALLOWED)
    | {"stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN},
    "usage_report": dict.fromkeys(MEMBERS, ALLOWED) | {"stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN},
    "limit_report": dict.fromkeys(MEMBERS, ALLOWED) | {"stranger": NOT_FOUND, "anonymous": NOT_SIGNED_IN},
}  # fmt: skip


def arguments(function: str, team: Team) -> Json:
    workspace, viewer = str(team.workspace_id), str(team.viewer.user_id)
    bodies: dict[str, Json] = {
        "create_workspace": {"name": "Another"},
        "delete_workspace": {"workspace_id": workspace},
        "change_member_role": {"workspace_id": workspace, "user_id": viewer, "role": "member"},
        "remove_member": {"workspace_id": workspace, "user_id": viewer},
        "create_api_key": {
            "name": "Key",
            "workspace_id": workspace,
            "secret_hmac": uuid4().hex * 2,
            "secret_hint": "bt_live_…abcd",
        },
        "list_api_keys": {"workspace_id": workspace},
        "update_api_key": {"key_id": str(uuid4()), "name": "Other"},
        "rotate_api_key": {
            "key_id": str(uuid4()),
            "secret_hmac": uuid4().hex * 2,
            "secret_hint": "bt_live_…abcd",
            "overlap_s": 0,
        },
        "revoke_api_key": {"key_id": str(uuid4())},
        "llm_settings": {"workspace_id": workspace},
        "change_llm_settings": {"workspace_id": workspace, "changes": {"redact": True}},
        "stored_calls": {"workspace_id": workspace},
        "usage_report": {"workspace_id": workspace},
        "limit_report": {"workspace_id": workspace},
    }
    return bodies[function]


def rows_changed_by(function: str, team: Team, body: object) -> set[Row]:
    """The rows that an allowed call should have changed, and no others."""
    if function == "create_workspace":
        assert isinstance(body, dict)
        workspace_id, owner = body["id"], body["created_by"]
        return {Row("workspaces", workspace_id), Row("members", f"{workspace_id} {owner}")}
    if function == "delete_workspace":
        memberships = {Row("members", f"{team.workspace_id} {team.callers[name].user_id}") for name in MEMBERS}
        return memberships | {Row("workspaces", str(team.workspace_id))}
    if function in ("change_member_role", "remove_member"):
        return {Row("members", f"{team.workspace_id} {team.viewer.user_id}")}
    return set()


@pytest.mark.parametrize("function", sorted(RPCS))
async def test_function_serves_whom_it_should_and_changes_nothing_else(visit: Visit, function: str) -> None:
    before = await read_rows(visit.database)
    response = await visit.client.post(f"/rpc/{function}", json=arguments(function, visit.team))
    changed = changed_rows(before, await read_rows(visit.database))

    body = response.json() if response.content else None
    code = body["code"] if isinstance(body, dict) and response.is_error else None
    assert (response.status_code, code) == RPCS[function][visit.name], response.text
    assert changed == (set() if response.is_error else rows_changed_by(function, visit.team, body))
