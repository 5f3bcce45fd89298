"""API keys over real HTTP: what is shown of them, who may do what, and that nobody gets more than they have."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.api_client import api_as, refusal
from tests.support.api_server import MODEL, ApiServer
from tests.support.callers import Caller, Team, call_function, join, new_caller, outcome
from tests.support.eventually import eventually
from tests.support.stack import RunningStack

Json = dict[str, Any]  # bodies of many shapes
NO_LIMITS: Json = {
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "calls_in_flight": None,
    "tokens_per_day": None,
    "nano_usd_per_day": None,
    "nano_usd_per_month": None,
}


@pytest.fixture
async def owner(api_server: ApiServer, team: Team) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, team.owner) as client:
        yield client


@pytest.fixture
async def admin(api_server: ApiServer, team: Team) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, team.admin) as client:
        yield client


@pytest.fixture
async def member(api_server: ApiServer, team: Team) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, team.member) as client:
        yield client


async def make_key(api: httpx.AsyncClient, **fields: object) -> Json:
    response = await api.post("/v1/keys", json={"name": "Test", **fields})
    assert response.status_code == 201, response.text
    made: Json = response.json()["data"]
    return made


async def add_keys(database: asyncpg.Connection, person: Caller, count: int) -> None:
    """That many keys of the person, all made at the same moment, past the API."""
    await database.execute(
        """
        with made as (
            insert into gateway.api_keys (user_id, name)
            select $1, 'Same moment' from generate_series(1, $2)
            returning id
        )
        insert into gateway.api_key_secrets (hmac, key_id, hint)
        select sha256(convert_to(id::text, 'utf8')), id, 'bt_live_…0000' from made
        """,
        person.user_id,
        count,
    )


async def shown(api: httpx.AsyncClient, key: Json) -> Json:
    response = await api.get(f"/v1/keys/{key['id']}")
    assert response.status_code == 200, response.text
    found: Json = response.json()["data"]
    return found


async def test_a_made_key_is_where_its_location_says_and_its_secret_is_nowhere_any_more(
    member: httpx.AsyncClient, team: Team, database: asyncpg.Connection
) -> None:
    made = await member.post("/v1/keys", json={"name": "  Nightly build "})
    key = made.json()["data"]
    secret = key.pop("secret")
    assert made.status_code == 201
    found = await member.get(made.headers["location"])
    assert found.json()["data"] == key
    assert key == {
        "id": key["id"],
        "user_id": str(team.member.user_id),
        "workspace_id": None,
        "name": "Nightly build",
        "hint": f"bt_live_…{secret[-4:]}",
        "models": None,
        "endpoints": None,
        "limits": NO_LIMITS,
        "created_at": key["created_at"],
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
    }
    everything = [str(row) for row in await database.fetch("select * from gateway.api_keys, gateway.api_key_secrets")]
    assert not any(secret in row or secret[8:20] in row for row in everything)


async def test_scopes_expiry_and_limits_are_kept_as_asked(member: httpx.AsyncClient, team: Team) -> None:
    wanted = {
        "workspace_id": str(team.workspace_id),
        "models": ["fake/chat"],
        "endpoints": ["chat", "models"],
        "expires_at": (datetime.now(UTC) + timedelta(days=30)).isoformat(),
        "limits": {"requests_per_minute": 3, "nano_usd_per_month": 10**15},
    }
    key = await shown(member, await make_key(member, **wanted))
    assert key["workspace_id"] == wanted["workspace_id"]
    assert (key["models"], key["endpoints"]) == (wanted["models"], wanted["endpoints"])
    assert datetime.fromisoformat(key["expires_at"]) == datetime.fromisoformat(str(wanted["expires_at"]))
    assert key["limits"] == {**NO_LIMITS, "requests_per_minute": 3, "nano_usd_per_month": 10**15}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"models": "fake/chat"}, "models"),
        ({"models": ["two words"]}, "models.0"),
        ({"models": ["x"] * 101}, "models"),
        ({"endpoints": ["admin"]}, "endpoints.0"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"limits": {"requests_per_minute": -1}}, "limits.requests_per_minute"),
        ({"limits": {"nano_usd_per_day": 0.5}}, "limits.nano_usd_per_day"),
        ({"limits": {"plan": "team"}}, "limits.plan"),
        ({"user_id": str(uuid4())}, "user_id"),
        ({"secret": "bt_live_of_my_own"}, "secret"),
        ({"revoked_at": None}, "revoked_at"),
    ],
)
async def test_a_field_that_cannot_be_is_named(fields: Json, field: str, member: httpx.AsyncClient) -> None:
    response = await member.post("/v1/keys", json={"name": "Test", **fields})
    assert refusal(response) == (422, "validation_failed")
    assert {fault["field"] for fault in response.json()["error"]["details"]["fields"]} == {field}


async def test_a_key_cannot_end_before_it_begins(member: httpx.AsyncClient) -> None:
    response = await member.post("/v1/keys", json={"name": "Late", "expires_at": "2020-01-01T00:00:00Z"})
    assert refusal(response) == (422, "expires_in_the_past")


async def test_a_key_has_no_model_that_its_persons_plan_has_not(
    member: httpx.AsyncClient, team: Team, database: asyncpg.Connection
) -> None:
    plan = f"plan-{uuid4().hex[:8]}"
    await database.execute("insert into gateway.plans (name, models) values ($1, array['a', 'b'])", plan)
    await database.execute(
        "insert into gateway.limits (scope, subject_id, plan) values ('user', $1, $2)", team.member.user_id, plan
    )
    refused = await member.post("/v1/keys", json={"name": "Greedy", "models": ["a", "c"]})
    assert refusal(refused) == (403, "scope_not_allowed")
    assert (await make_key(member, models=["b"]))["models"] == ["b"]
    assert (await make_key(member))["models"] is None


async def test_who_makes_keys_for_a_workspace(
    member: httpx.AsyncClient, team: Team, api_server: ApiServer, database: asyncpg.Connection
) -> None:
    fields = {"name": "Ours", "workspace_id": str(team.workspace_id)}
    async with api_as(api_server, team.viewer) as viewer, api_as(api_server, team.stranger) as stranger:
        assert refusal(await viewer.post("/v1/keys", json=fields)) == (403, "not_allowed")
        assert refusal(await stranger.post("/v1/keys", json=fields)) == (404, "workspace_not_found")
    assert (await member.post("/v1/keys", json=fields)).status_code == 201
    assert (
        await database.fetchval("select count(*) from gateway.api_keys where workspace_id = $1", team.workspace_id) == 1
    )


async def test_owners_and_admins_see_and_revoke_everybodys_keys_and_members_their_own(
    owner: httpx.AsyncClient, admin: httpx.AsyncClient, member: httpx.AsyncClient, team: Team
) -> None:
    of_workspace = {"workspace_id": str(team.workspace_id)}
    mine, theirs = await make_key(member, **of_workspace), await make_key(owner, **of_workspace)
    private = await make_key(member)

    async def ids(api: httpx.AsyncClient, **query: str) -> list[str]:
        return [key["id"] for key in (await api.get("/v1/keys", params=query)).json()["data"]]

    assert await ids(owner, **of_workspace) == await ids(admin, **of_workspace) == [mine["id"], theirs["id"]]
    assert await ids(member, **of_workspace) == [mine["id"]]
    assert await ids(member) == [mine["id"], private["id"]]
    assert await ids(admin) == []
    for method in ("GET", "DELETE"):
        assert refusal(await admin.request(method, f"/v1/keys/{private['id']}")) == (404, "key_not_found")
        assert refusal(await member.request(method, f"/v1/keys/{theirs['id']}")) == (404, "key_not_found")
    assert (await admin.delete(f"/v1/keys/{mine['id']}")).status_code == 204
    assert (await shown(member, mine))["revoked_at"] is not None


async def test_nobody_gets_a_secret_that_calls_in_somebody_elses_name(
    owner: httpx.AsyncClient, member: httpx.AsyncClient, team: Team
) -> None:
    key = await make_key(member, workspace_id=str(team.workspace_id))
    path = f"/v1/keys/{key['id']}"
    assert refusal(await owner.post(f"{path}/rotate", json={"overlap_s": 0})) == (403, "not_allowed")
    assert refusal(await owner.patch(path, json={"name": "Mine now"})) == (403, "not_allowed")
    assert await shown(member, key) == {name: value for name, value in key.items() if name != "secret"}


async def test_a_revoked_key_stays_revoked_and_is_not_rotated(member: httpx.AsyncClient) -> None:
    key = await make_key(member)
    path = f"/v1/keys/{key['id']}"
    assert (await member.delete(path)).status_code == 204
    ended_at = (await shown(member, key))["revoked_at"]
    assert (await member.delete(path)).status_code == 204
    assert (await shown(member, key))["revoked_at"] == ended_at
    assert refusal(await member.post(f"{path}/rotate", json={})) == (409, "key_ended")


async def test_a_patch_changes_what_it_names(member: httpx.AsyncClient) -> None:
    key = await make_key(member, limits={"tokens_per_day": 5, "calls_in_flight": 1})
    path = f"/v1/keys/{key['id']}"
    renamed = (await member.patch(path, json={"name": "Other"})).json()["data"]
    assert (renamed["name"], renamed["limits"]) == ("Other", key["limits"])
    limited = await member.patch(path, json={"limits": {"tokens_per_day": None, "requests_per_minute": 9}})
    expected = {**NO_LIMITS, "calls_in_flight": 1, "requests_per_minute": 9}
    assert limited.json()["data"] == {**renamed, "limits": expected}
    assert (await member.patch(path, json={})).json()["data"] == limited.json()["data"]


@pytest.mark.parametrize("limits", [{"requests_per_minute": 11}, {"requests_per_minute": None}])
async def test_what_an_admin_limits_a_member_cannot_raise(
    limits: Json, admin: httpx.AsyncClient, member: httpx.AsyncClient, team: Team
) -> None:
    key = await make_key(member, workspace_id=str(team.workspace_id))
    path = f"/v1/keys/{key['id']}"
    assert (await admin.patch(path, json={"limits": {"requests_per_minute": 10}})).status_code == 200
    assert refusal(await member.patch(path, json={"limits": limits})) == (403, "limit_raised")
    tighter = await member.patch(path, json={"limits": {"requests_per_minute": 9, "tokens_per_day": 1}})
    assert tighter.json()["data"]["limits"] == {**NO_LIMITS, "requests_per_minute": 9, "tokens_per_day": 1}
    assert (await admin.patch(path, json={"limits": limits})).status_code == 200


async def test_a_person_has_fifty_keys_at_most_however_many_they_ask_for_at_once(
    member: httpx.AsyncClient, team: Team, database: asyncpg.Connection
) -> None:
    await add_keys(database, team.member, 45)
    answers = await asyncio.gather(*(member.post("/v1/keys", json={"name": "New"}) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 5
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refusal(refused) == (409, "too_many_keys")
    [made] = (await member.get("/v1/keys?limit=1")).json()["data"]
    await member.delete(f"/v1/keys/{made['id']}")
    await make_key(member)


async def test_of_the_keys_that_have_ended_the_latest_fifty_are_kept(
    member: httpx.AsyncClient, team: Team, database: asyncpg.Connection
) -> None:
    await database.execute(
        """
        insert into gateway.api_keys (user_id, name, created_at, revoked_at)
        select $1, format('Ended %s', n), now() - interval '1 year', now() - n * interval '1 minute'
        from generate_series(1, 60) as n
        """,
        team.member.user_id,
    )
    await make_key(member)
    names = await database.fetch("select name from gateway.api_keys where user_id = $1", team.member.user_id)
    assert {row["name"] for row in names} == {"Test", *(f"Ended {n}" for n in range(1, 51))}


async def test_pages_of_keys_hold_each_once(
    member: httpx.AsyncClient, team: Team, database: asyncpg.Connection
) -> None:
    await add_keys(database, team.member, 7)
    ids, cursor = [], None
    while True:
        page = (await member.get("/v1/keys", params={"limit": 3, **({"cursor": cursor} if cursor else {})})).json()
        ids += [key["id"] for key in page["data"]]
        cursor = page["meta"]["next_cursor"]
        if cursor is None:
            break
    assert len(ids) == len(set(ids)) == 7


async def test_a_key_that_works_in_an_overlap_has_four_secrets_at_most(
    member: httpx.AsyncClient, database: asyncpg.Connection
) -> None:
    key = await make_key(member)
    path = f"/v1/keys/{key['id']}/rotate"
    for _ in range(3):
        assert (await member.post(path, json={"overlap_s": 600})).status_code == 200
    assert refusal(await member.post(path, json={})) == (409, "too_many_secrets")
    last = (await member.post(path, json={"overlap_s": 0})).json()["data"]
    assert last["secret"].endswith(last["hint"][-4:])
    live = (
        "select count(*) from gateway.api_key_secrets where key_id = $1 and (expires_at is null or expires_at > now())"
    )
    assert await database.fetchval(live, key["id"]) == 1


async def test_whoever_leaves_a_workspace_leaves_their_keys_to_it(
    owner: httpx.AsyncClient, member: httpx.AsyncClient, team: Team, database: asyncpg.Connection
) -> None:
    key = await make_key(member, workspace_id=str(team.workspace_id), limits={"tokens_per_day": 1})
    kept = await make_key(member)
    gone = await owner.delete(f"/v1/workspaces/{team.workspace_id}/members/{team.member.user_id}")
    assert gone.status_code == 204
    await join(database, team.workspace_id, team.member, "member")
    assert [row["id"] for row in (await member.get("/v1/keys")).json()["data"]] == [kept["id"]]
    assert await database.fetchval("select count(*) from gateway.limits where subject_id = $1", key["id"]) == 0


async def test_an_api_key_opens_the_gateway_and_not_the_api(member: httpx.AsyncClient, api_server: ApiServer) -> None:
    key = await make_key(member)
    async with httpx.AsyncClient(base_url=api_server.url) as program:
        for headers in ({"authorization": f"Bearer {key['secret']}"}, {"x-api-key": key["secret"]}):
            refused = await program.get("/v1/keys", headers=headers)
            code = "api_key_not_accepted" if "authorization" in headers else "token_missing"
            assert refusal(refused) == (401, code)
        answer = await program.get("/llm/v1/models", headers={"authorization": f"Bearer {key['secret']}"})
        assert answer.status_code == 200


async def test_past_the_api_nobody_makes_a_key_that_opens_anything(stack: RunningStack, team: Team) -> None:
    """PostgREST is open to everybody who is signed in, so the functions keep the rules by themselves."""
    good = {"name": "Direct", "secret_hmac": "ab" * 32, "secret_hint": "bt_live_…abcd"}
    for wrong in ({"secret_hmac": "ab"}, {"secret_hmac": "zz" * 32}, {"secret_hint": "bt_live_" + "x" * 33}):
        refused = await call_function(stack, team.member, "create_api_key", **{**good, **wrong})
        assert refused.status_code in (400, 422), refused.text
    made = await call_function(stack, team.member, "create_api_key", **good)
    assert made.status_code == 200, made.text
    again = await call_function(stack, team.stranger, "create_api_key", **good)
    assert outcome(again)[0] == 409
    limited = await call_function(
        stack, team.member, "update_api_key", key_id=made.json()["id"], limits={"plan": "team", "scope": "user"}
    )
    assert outcome(limited) == (422, "limit_unknown")
    nobody = Caller(user_id=uuid4(), email="", access_token="", role="anon")
    assert (await call_function(stack, nobody, "list_api_keys")).status_code in (401, 403)


async def test_a_signed_out_session_makes_no_key(
    stack: RunningStack, database: asyncpg.Connection, api_server: ApiServer
) -> None:
    caller = await new_caller(stack, database)
    await database.execute("delete from auth.sessions where user_id = $1", caller.user_id)
    async with api_as(api_server, caller) as api:
        assert refusal(await api.post("/v1/keys", json={"name": "Test"})) == (401, "session_ended")


async def test_from_a_key_to_its_bill(member: httpx.AsyncClient, team: Team, api_server: ApiServer) -> None:
    """Made, used, shown as used and limited, rotated, and in the end of no use: all over HTTP, as people do it."""
    key = await make_key(member, workspace_id=str(team.workspace_id), limits={"requests_per_minute": 2})
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "Hi."}]}

    async def call(secret: str) -> int:
        async with httpx.AsyncClient(base_url=api_server.url, timeout=30) as program:
            answer = await program.post("/llm/v1/chat/completions", json=ask, headers={"x-api-key": secret})
        return answer.status_code

    assert await call(key["secret"]) == 200
    renewed = (await member.post(f"/v1/keys/{key['id']}/rotate", json={"overlap_s": 60})).json()["data"]
    assert renewed["secret"] != key["secret"]
    assert [await call(key["secret"]), await call(renewed["secret"])] == [200, 429]

    async def is_billed() -> bool:
        rows = (await member.get("/v1/usage", params={"group_by": "key,model"})).json()["data"]
        return [(row["key_id"], row["model"], row["calls"]) for row in rows] == [(key["id"], MODEL, 2)]

    await eventually(is_billed)
    [of_key] = (await member.get("/v1/limits", params={"key_id": key["id"]})).json()["data"]
    assert (of_key["limits"][0]["limit"], of_key["limits"][0]["remaining"]) == (2, 0)
    assert of_key["limits"][5]["used"] > 0
    assert (await shown(member, key))["last_used_at"] is not None
    assert (await member.delete(f"/v1/keys/{key['id']}")).status_code == 204
    await asyncio.sleep(1.0)  # the promise itself
    assert [await call(key["secret"]), await call(renewed["secret"])] == [401, 401]
