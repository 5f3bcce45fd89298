"""Every operation of the OpenAPI document, as every kind of caller. An operation that is not listed here fails."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.api_client import api_as, refusal
from tests.support.api_keys import Key, new_key
from tests.support.api_server import ApiServer
from tests.support.callers import PASSWORD, Caller, Team, join, make_team, new_caller
from tests.support.row_changes import changed_rows, read_rows
from tests.support.stack import RunningStack

Json = dict[str, Any]  # bodies of many shapes
CALLERS = ("owner", "admin", "member", "viewer", "stranger", "anonymous", "api_key")

EVERYBODY = (200,) * 7
SIGNED_IN = (200,) * 5 + (401, 401)
MEMBERS = (200,) * 4 + (404, 401, 401)
OWNER_AND_ADMIN = (200, 200, 403, 403, 404, 401, 401)
THOSE_WHO_RUN_IT = (200, 200, 404, 404, 404, 401, 401)

# operation -> the status for each of CALLERS; what they ask for is the team's workspace, its member Bystander, and the
# key to it that Bystander has. The API key is the owner's.
MATRIX: dict[tuple[str, str], tuple[int, ...]] = {
    ("post", "/v1/auth/sign-up"): (201,) * 7,
    ("post", "/v1/auth/sign-in"): (401,) * 7,  # with a password that is wrong
    ("post", "/v1/auth/refresh"): (401,) * 7,  # with a token that is none
    ("post", "/v1/auth/sign-out"): (204,) * 5 + (401, 401),
    ("get", "/v1/auth/session"): SIGNED_IN,
    ("get", "/v1/me"): SIGNED_IN,
    ("patch", "/v1/me"): SIGNED_IN,
    ("post", "/v1/workspaces"): (201,) * 5 + (401, 401),
    ("get", "/v1/workspaces"): SIGNED_IN,
    ("get", "/v1/workspaces/{workspace_id}"): MEMBERS,
    ("patch", "/v1/workspaces/{workspace_id}"): OWNER_AND_ADMIN,
    ("delete", "/v1/workspaces/{workspace_id}"): (204, 403, 403, 403, 404, 401, 401),
    ("get", "/v1/workspaces/{workspace_id}/members"): MEMBERS,
    ("patch", "/v1/workspaces/{workspace_id}/members/{user_id}"): OWNER_AND_ADMIN,
    ("delete", "/v1/workspaces/{workspace_id}/members/{user_id}"): (204, 204, 403, 403, 404, 401, 401),
    ("post", "/v1/keys"): (201,) * 5 + (401, 401),
    ("get", "/v1/keys"): SIGNED_IN,
    ("get", "/v1/keys/{key_id}"): THOSE_WHO_RUN_IT,
    ("patch", "/v1/keys/{key_id}"): (403, 403, 404, 404, 404, 401, 401),  # a name; limits are in test_api_keys.py
    ("delete", "/v1/keys/{key_id}"): (204, 204, 404, 404, 404, 401, 401),
    ("post", "/v1/keys/{key_id}/rotate"): (403, 403, 404, 404, 404, 401, 401),
    ("get", "/v1/limits"): SIGNED_IN,
    ("get", "/v1/usage"): SIGNED_IN,
    ("get", "/v1/workspaces/{workspace_id}/llm"): MEMBERS,
    ("patch", "/v1/workspaces/{workspace_id}/llm"): OWNER_AND_ADMIN,
    ("get", "/v1/workspaces/{workspace_id}/llm/calls"): OWNER_AND_ADMIN,
    ("get", "/health/live"): EVERYBODY,
    ("get", "/health/ready"): EVERYBODY,
}


def body_of(method: str, path: str) -> Json | None:
    """A body this operation accepts."""
    bodies: dict[tuple[str, str], Json] = {
        ("post", "/v1/auth/sign-up"): {"email": f"{uuid4().hex}@example.com", "password": PASSWORD},
        ("post", "/v1/auth/sign-in"): {"email": f"{uuid4().hex}@example.com", "password": "Wrong-horse-9"},
        ("post", "/v1/auth/refresh"): {"refresh_token": "none-of-ours"},
        ("patch", "/v1/me"): {"display_name": "Changed"},
        ("post", "/v1/workspaces"): {"name": "Changed"},
        ("patch", "/v1/workspaces/{workspace_id}"): {"name": "Changed"},
        ("patch", "/v1/workspaces/{workspace_id}/members/{user_id}"): {"role": "viewer"},
        ("post", "/v1/keys"): {"name": "Changed"},
        ("patch", "/v1/keys/{key_id}"): {"name": "Changed"},
        ("post", "/v1/keys/{key_id}/rotate"): {"overlap_s": 60},
        ("patch", "/v1/workspaces/{workspace_id}/llm"): {"store_days": 7},
    }
    return bodies.get((method, path))


@dataclass(frozen=True)
class Place:
    """A team with one more member, whom nobody of the team is, and who has a key to the workspace."""

    team: Team
    bystander: Caller
    key: Key
    callers: dict[str, Caller]

    def fill(self, path: str) -> str:
        return path.format(workspace_id=self.team.workspace_id, user_id=self.bystander.user_id, key_id=self.key.id)


@pytest.fixture
async def place(stack: RunningStack, database: asyncpg.Connection) -> Place:
    team = await make_team(stack, database)
    bystander = await new_caller(stack, database, display_name="Bystander")
    await join(database, team.workspace_id, bystander, "member")
    key = await new_key(stack, database, bystander, workspace_id=team.workspace_id)
    owners = await new_key(stack, database, team.owner)
    program = Caller(team.owner.user_id, team.owner.email, owners.secret)
    return Place(team, bystander, key, {**team.callers, "api_key": program})


async def read_keys(database: asyncpg.Connection) -> list[str]:
    """Every key with its secrets and limits. Not its last use: that of another test's call may just be noted."""
    rows = await database.fetch(
        "select to_jsonb(keys) - 'last_used_at', secrets, limits from gateway.api_keys as keys"
        " left join gateway.api_key_secrets as secrets on secrets.key_id = keys.id"
        " left join gateway.limits on limits.scope = 'key' and limits.subject_id = keys.id"
    )
    return sorted(str(row) for row in rows)


# Any: the OpenAPI document is JSON of any shape
@pytest.fixture
async def document(api_server: ApiServer) -> dict[str, Any]:
    async with api_as(api_server) as api:
        response = await api.get("/openapi.json")
    document: dict[str, Any] = response.json()
    return document


def operations_of(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "responses" in operation
    }


async def test_every_operation_is_classified(document: dict[str, Any]) -> None:
    assert set(operations_of(document)) == set(MATRIX)


async def test_an_operation_is_open_to_everybody_only_where_the_document_says_so(document: dict[str, Any]) -> None:
    for operation, description in operations_of(document).items():
        refuses_anonymous = MATRIX[operation][-1] == 401 and not operation[1].startswith("/v1/auth/")
        if refuses_anonymous:
            assert description["security"] == [{"bearer": []}], operation


@pytest.fixture(params=CALLERS)
async def caller(request: pytest.FixtureRequest, place: Place) -> tuple[str, Caller]:
    name = str(request.param)
    return name, place.callers[name]


@pytest.mark.parametrize(("method", "path"), list(MATRIX))
async def test_each_caller_gets_what_the_matrix_says_and_a_refusal_changes_nothing(
    *,
    method: str,
    path: str,
    caller: tuple[str, Caller],
    place: Place,
    api_server: ApiServer,
    database: asyncpg.Connection,
    document: dict[str, Any],
) -> None:
    name, who = caller
    expected = MATRIX[method, path][CALLERS.index(name)]
    before, keys_before = await read_rows(database), await read_keys(database)
    async with api_as(api_server, who) as api:
        response = await api.request(method, place.fill(path), json=body_of(method, path))
    assert response.status_code == expected, response.text
    assert str(expected) in operations_of(document)[method, path]["responses"]
    changed = changed_rows(before, await read_rows(database))
    if expected >= 400:
        assert refusal(response)[0] == expected
    if expected >= 400 or method == "get":
        assert changed == set()
        assert await read_keys(database) == keys_before


@pytest.fixture
async def owner_api(place: Place, api_server: ApiServer) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, place.team.owner) as api:
        yield api


@pytest.mark.parametrize("extra", ["id", "role", "is_personal", "created_by", "workspace_id", "caller", "data", "page"])
@pytest.mark.parametrize(("method", "path"), [key for key in MATRIX if body_of(*key) is not None])
async def test_a_field_nobody_asked_for_is_refused_and_named(
    *,
    method: str,
    path: str,
    extra: str,
    place: Place,
    owner_api: httpx.AsyncClient,
    database: asyncpg.Connection,
) -> None:
    body = body_of(method, path) or {}
    if extra in body:
        pytest.skip("this operation does ask for it")
    before = await read_rows(database)
    response = await owner_api.request(method, place.fill(path), json={**body, extra: "owner"})
    assert refusal(response) == (422, "validation_failed")
    assert {field["field"] for field in response.json()["error"]["details"]["fields"]} == {extra}
    assert changed_rows(before, await read_rows(database)) == set()


@pytest.mark.parametrize(
    "value", [None, 1, True, [], {}, "", "   ", "x" * 10_000, "two\nlines", "esc\x1b[0m", "\u202eevil"]
)
@pytest.mark.parametrize(("method", "path"), [key for key in MATRIX if body_of(*key) is not None])
async def test_a_value_of_the_wrong_kind_is_refused(
    *, method: str, path: str, value: object, place: Place, owner_api: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    body = body_of(method, path) or {}
    if "refresh_token" in body and isinstance(value, str) and 0 < len(value) < 4096:
        pytest.skip("a token is opaque: any text may be one")
    if {"overlap_s", "store_days"} & set(body) and value == 1 and value is not True:
        pytest.skip("a second is an overlap, and a day a time to keep something")
    before = await read_rows(database)
    response = await owner_api.request(method, place.fill(path), json=dict.fromkeys(body, value))
    assert refusal(response) == (422, "validation_failed")
    fields = {field["field"] for field in response.json()["error"]["details"]["fields"]}
    assert fields >= set(body) - {"password"}
    assert changed_rows(before, await read_rows(database)) == set()
