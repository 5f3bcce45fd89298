"""API keys at the gateway's door: what they open, and that within a second they open nothing any more, anywhere."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import openai
import pytest

from tests.support.api_keys import Key, new_key, ring_of
from tests.support.api_server import MODEL, ApiServer
from tests.support.callers import Caller, Team, join, make_team, new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_ledger import usage_rows
from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack

Json = dict[str, Any]  # bodies of many shapes
ASK: Json = {"model": "fake/chat", "messages": [{"role": "user", "content": "Hi."}]}


@pytest.fixture
async def program(gateway: GatewayServer) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without any credential of their own."""
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=30) as client:
        yield client


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("how", ["Authorization: Bearer", "x-api-key"])
async def test_a_call_with_a_key_is_charged_to_its_person_the_key_and_its_workspace(
    *, how: str, stack: RunningStack, database: asyncpg.Connection, program: httpx.AsyncClient, team: Team
) -> None:
    key = await new_key(stack, database, team.member, workspace_id=team.workspace_id)
    headers = key.headers if how.startswith("Auth") else {"x-api-key": key.secret}
    answer = await program.post("/chat/completions", json=ASK, headers=headers)
    assert answer.status_code == 200, answer.text
    [row] = await usage_rows(database, team.member, count=1)
    assert (row["user_id"], row["key_id"], row["workspace_id"]) == (team.member.user_id, key.id, team.workspace_id)


async def test_a_call_with_a_token_is_charged_to_the_workspace_it_names(
    gateway: GatewayServer, database: asyncpg.Connection, team: Team
) -> None:
    workspace = {"x-buttress-workspace": str(team.workspace_id)}
    async with gateway.http(team.member) as client:
        assert (await client.post("/chat/completions", json=ASK, headers=workspace)).status_code == 200
    async with gateway.http(team.stranger) as client:
        refused = await client.post("/chat/completions", json=ASK, headers=workspace)
    assert code_of(refused) == (403, "not_a_member")
    [row] = await usage_rows(database, team.member, count=1)
    assert (row["key_id"], row["workspace_id"]) == (None, team.workspace_id)


async def test_a_key_opens_its_models_and_endpoints_and_a_providers_hears_of_no_others(
    stack: RunningStack,
    database: asyncpg.Connection,
    program: httpx.AsyncClient,
    caller: Caller,
    fake_provider: FakeProvider,
) -> None:
    narrow = await new_key(stack, database, caller, models=["fake/impatient"], endpoints=["chat", "models"])
    listed = (await program.get("/models", headers=narrow.headers)).json()["data"]
    assert [model["id"] for model in listed] == ["fake/impatient"]
    refused = await program.post("/chat/completions", json=ASK, headers=narrow.headers)
    assert code_of(refused) == (403, "model_not_allowed")
    elsewhere = await program.post(
        "/embeddings", json={"model": "fake/impatient", "input": "Hi."}, headers=narrow.headers
    )
    assert code_of(elsewhere) == (403, "endpoint_not_allowed")
    silent = await new_key(stack, database, caller, endpoints=["embeddings"])
    assert code_of(await program.get("/models", headers=silent.headers)) == (403, "endpoint_not_allowed")
    assert fake_provider.bill().counts.requests == 0


async def test_a_keys_own_limit_refuses_its_calls_and_nobody_elses(
    stack: RunningStack, database: asyncpg.Connection, program: httpx.AsyncClient, caller: Caller
) -> None:
    small, large = await new_key(stack, database, caller), await new_key(stack, database, caller)
    await database.execute(
        "insert into gateway.limits (scope, subject_id, requests_per_minute) values ('key', $1, 1)", small.id
    )
    statuses = [
        (await program.post("/chat/completions", json=ASK, headers=key.headers)).status_code
        for key in (small, small, large, large)
    ]
    assert statuses == [200, 429, 200, 200]


async def test_the_official_client_raises_its_own_exceptions_for_keys(
    stack: RunningStack, database: asyncpg.Connection, gateway: GatewayServer, caller: Caller
) -> None:
    key = await new_key(stack, database, caller, endpoints=["chat"])
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key.secret, max_retries=0) as client:
        assert (await client.chat.completions.create(**ASK)).choices
        with pytest.raises(openai.PermissionDeniedError):
            await client.models.list()
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key.secret[:-1] + "!", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_what_ends_a_key_ends_it_in_every_process_within_a_second(
    stack: RunningStack, database: asyncpg.Connection, gateway: GatewayServer, api_server: ApiServer
) -> None:
    """Everything is done at once, and a second later nothing opens, in the gateway alone as in the one in the API."""
    team = await make_team(stack, database)
    other = await make_team(stack, database)
    people = [await new_caller(stack, database) for _ in range(3)]

    async def member_key(person: Caller) -> Key:
        await join(database, team.workspace_id, person, "member")
        return await new_key(stack, database, person, workspace_id=team.workspace_id)

    keys = {
        "revoked": await new_key(stack, database, team.member),
        "expired": await new_key(stack, database, team.member),
        "rotated": await new_key(stack, database, team.member),
        "removed": await member_key(people[0]),
        "viewer": await member_key(people[1]),
        "workspace": await new_key(stack, database, other.owner, workspace_id=other.workspace_id),
        "user": await new_key(stack, database, people[2]),
        "plan": await new_key(stack, database, team.admin),
    }
    expected = {
        "revoked": (401, "api_key_revoked"),
        "expired": (401, "api_key_expired"),
        "rotated": (401, "api_key_rotated"),
        "removed": (401, "api_key_invalid"),
        "viewer": (403, "not_allowed"),
        "workspace": (401, "api_key_invalid"),
        "user": (401, "api_key_invalid"),
        "plan": (404, "model_not_found"),
        "token": (403, "not_a_member"),
    }
    headers = {name: key.headers for name, key in keys.items()}
    headers["token"] = {**people[0].headers, "x-buttress-workspace": str(team.workspace_id)}
    doors = {gateway.base_url: "fake/chat", api_server.gateway_url: MODEL}

    async def ask_everywhere() -> dict[str, list[tuple[int, str]]]:
        async with httpx.AsyncClient(timeout=30) as client:
            answers = {
                name: [await client.get(f"{url}/models/{model}", headers=sent) for url, model in doors.items()]
                for name, sent in headers.items()
            }
        return {
            name: [(200, "") if answer.is_success else code_of(answer) for answer in both]
            for name, both in answers.items()
        }

    assert await ask_everywhere() == {name: [(200, ""), (200, "")] for name in expected}
    plan = f"plan-{uuid4().hex[:8]}"
    async with database.transaction():
        await database.execute("update gateway.api_keys set revoked_at = now() where id = $1", keys["revoked"].id)
        await database.execute("update gateway.api_keys set expires_at = now() where id = $1", keys["expired"].id)
        await database.execute(
            "update gateway.api_key_secrets set expires_at = now() where key_id = $1", keys["rotated"].id
        )
        await database.execute("delete from api.members where user_id = $1 and role = 'member'", people[0].user_id)
        await database.execute("update api.members set role = 'viewer' where user_id = $1", people[1].user_id)
        await database.execute("delete from api.workspaces where id = $1", other.workspace_id)
        await database.execute("delete from auth.users where id = $1", people[2].user_id)
        await database.execute("insert into gateway.plans (name, models) values ($1, '{}')", plan)
        await database.execute(
            "insert into gateway.limits (scope, subject_id, plan) values ('user', $1, $2)", team.admin.user_id, plan
        )
    await asyncio.sleep(1.0)  # the promise itself
    assert await ask_everywhere() == {name: [code, code] for name, code in expected.items()}


async def test_a_body_that_comes_slowly_does_not_call_on_with_a_key_that_has_ended(
    stack: RunningStack,
    database: asyncpg.Connection,
    gateway: GatewayServer,
    caller: Caller,
    fake_provider: FakeProvider,
) -> None:
    key = await new_key(stack, database, caller)
    body = json.dumps(ASK).encode()
    url = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(
            b"POST /llm/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (key.secret.encode(), len(body))
        )
        await writer.drain()

        async def is_let_in() -> bool:
            query = "select last_used_at is not null from gateway.api_keys where id = $1"
            return bool(await database.fetchval(query, key.id))

        await eventually(is_let_in)
        await database.execute("update gateway.api_keys set revoked_at = now() where id = $1", key.id)
        await asyncio.sleep(1.0)
        writer.write(body)
        assert (await asyncio.wait_for(reader.readline(), timeout=30)).split()[1] == b"401"
    finally:
        writer.close()
    assert fake_provider.bill().counts.requests == 0


SECRETS_OF_NOBODY = {
    "short": b"bt_live_abc",
    "made up": b"bt_live_" + b"0" * 33,
    "sql": b"bt_live_' or '1'='1' --",
    "more sql": b"bt_live_');select pg_sleep(10);--",
    "10 KB": b"bt_live_" + b"a" * 10_000,
    "latin-1": b"bt_live_" + b"\xe9" * 33,
    "utf-8": "bt_live_\u0663\u0663\u0663".encode(),
    "other prefix": b"bt_test_" + b"0" * 33,
    "spaces": b"bt_live_ 0000",
    "tab": b"bt_live_\t0000",
}


@pytest.mark.parametrize("header", [b"authorization: Bearer ", b"x-api-key: "])
@pytest.mark.parametrize("secret", SECRETS_OF_NOBODY.values(), ids=SECRETS_OF_NOBODY.keys())
async def test_what_is_no_key_is_refused_without_a_fault(header: bytes, secret: bytes, gateway: GatewayServer) -> None:
    assert await status_of(gateway, header + secret) == 401


@pytest.mark.parametrize("header", [b"authorization: Bearer ", b"x-api-key: "])
@pytest.mark.parametrize("secret", [b"bt_live_\x00", b"bt_live_\x7f\x01", b"bt_live_" + b"a" * 200_000])
async def test_what_is_no_header_is_refused_without_a_fault(
    header: bytes, secret: bytes, gateway: GatewayServer
) -> None:
    """By the server already, which may hang up (0) instead of answering."""
    assert await status_of(gateway, header + secret) in {0, 400, 401, 431}


async def status_of(gateway: GatewayServer, header: bytes) -> int:
    """The status of a request with this line as its header, byte by byte; 0 where there is no answer."""
    url = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(b"GET /llm/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + header + b"\r\n\r\n")
        await writer.drain()
        line = await asyncio.wait_for(reader.readline(), timeout=30)
        return int(line.split()[1]) if line else 0
    except ConnectionError:
        return 0
    finally:
        writer.close()


async def test_keys_are_not_written_to_the_log(
    stack: RunningStack,
    database: asyncpg.Connection,
    program: httpx.AsyncClient,
    gateway: GatewayServer,
    caller: Caller,
) -> None:
    key = await new_key(stack, database, caller)
    unknown = ring_of(stack).make().secret
    for secret in (key.secret, unknown, f"{key.secret}x"):
        await program.post("/chat/completions", json=ASK, headers={"authorization": f"Bearer {secret}"})
        await program.post(f"/chat/{secret}", json=ASK, headers={"x-api-key": secret})
    log = gateway.log_file.read_text()
    assert key.secret not in log
    assert unknown not in log
