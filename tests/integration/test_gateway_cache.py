"""An answer is given again to whoever was given it, for exactly the same request, for nothing; to nobody else, ever."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
import pytest
from jose import jwt

from llm_gateway import Gateway
from llm_gateway.cache import postgres
from tests.support.callers import Caller, join, make_team, new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Step, ToolCall
from tests.support.gateway_ledger import open_holds, set_limits, usage_rows
from tests.support.gateway_server import GatewayServer
from tests.support.gateway_within import ask_within, gateway_within
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.stack import RunningStack

WISH = {"x-buttress-cache": "max-age=600"}
CHAT: dict[str, object] = {"model": "fake/chat", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 20}
MESSAGE: dict[str, object] = {**CHAT, "model": "fake/claude"}
RESPONSE: dict[str, object] = {"model": "fake/chat", "input": "Hi.", "max_output_tokens": 20}
FORMATS = {"/chat/completions": CHAT, "/messages": MESSAGE, "/responses": RESPONSE}


async def ask(
    gateway: GatewayServer,
    caller: Caller,
    body: Mapping[str, object] = CHAT,
    *,
    path: str = "/chat/completions",
    headers: Mapping[str, str] = WISH,
) -> httpx.Response:
    async with gateway.http(caller) as client:
        return await client.post(path, json=body, headers={"anthropic-version": "2023-06-01", **headers})


async def until_stored(database: asyncpg.Connection, tenant_id: UUID, *, count: int = 1) -> None:
    async def it_is() -> bool:
        query = "select count(*) from gateway.cached_answers where tenant_id = $1"
        return int(await database.fetchval(query, tenant_id)) >= count

    await eventually(it_is)


async def nothing_stored(gateway: GatewayServer, database: asyncpg.Connection, caller: Caller) -> None:
    """A later answer of the same caller is stored, and the earlier one is not: they are stored in their order."""
    later = {**CHAT, "messages": [{"role": "user", "content": f"later {time.time_ns()}"}]}
    await ask(gateway, caller, later)
    await until_stored(database, caller.user_id)
    query = "select count(*) from gateway.cached_answers where tenant_id = $1"
    assert await database.fetchval(query, caller.user_id) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", FORMATS)
async def test_the_same_request_is_answered_again_byte_for_byte_for_nothing(
    *,
    path: str,
    stream: bool,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(Step(text="It is sunny in Basel.", split_bytes=7))
    body = {**FORMATS[path], "stream": stream}
    first = await ask(gateway, caller, body, path=path)
    assert (first.status_code, first.headers["x-buttress-cache"]) == (200, "miss"), first.text
    await until_stored(database, caller.user_id)
    reordered = dict(reversed(body.items()))
    again = await ask(gateway, caller, reordered, path=path)
    assert (again.status_code, again.headers["x-buttress-cache"]) == (200, "hit")
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert float(again.headers["x-buttress-cost-usd"]) == 0
    assert fake_provider.bill().counts.requests == 1
    paid, free = await usage_rows(database, caller, count=2)
    assert (paid["outcome"], free["outcome"], free["state"]) == ("ok", "cached", "settled")
    assert paid["cost_nano_usd"] > 0
    assert (free["cost_nano_usd"], free["input_tokens"], free["output_tokens"]) == (0, 0, 0)
    assert free["endpoint"] == paid["endpoint"]
    assert await open_holds(database, caller) == 0


async def test_answers_that_call_tools_are_given_again(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(tool_calls=(ToolCall(name="f", arguments='{"a": 1}'),)))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    first = await ask(gateway, caller, {**CHAT, "tools": tools})
    await until_stored(database, caller.user_id)
    assert (await ask(gateway, caller, {**CHAT, "tools": tools})).content == first.content


async def test_nobody_is_asked_to_be_remembered_who_did_not_say_so(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    for headers in ({}, {"x-buttress-cache": "no-store"}, {"x-buttress-cache": "max-age=0"}):
        response = await ask(gateway, caller, headers=headers)
        assert "x-buttress-cache" not in response.headers
    await nothing_stored(gateway, database, caller)
    assert fake_provider.bill().counts.requests == 4


@pytest.mark.parametrize("header", ["", "yes", "max-age", "max-age=-1", "max-age=1e3", "max-age=60, no-store"])
async def test_a_header_that_says_nothing_is_refused(gateway: GatewayServer, caller: Caller, header: str) -> None:
    response = await ask(gateway, caller, headers={"x-buttress-cache": header})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_cache_header"


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "Hi!"}]},
        {"messages": [{"role": "system", "content": "Hi."}]},
        {"temperature": 0.5},
        {"max_tokens": 21},
        {"seed": 1},
        {"stream": True},
        {"model": "fake/o-series"},
        {"user": "somebody"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_another_request_is_another_answer(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, change: dict[str, object]
) -> None:
    await ask(gateway, caller)
    await until_stored(database, caller.user_id)
    assert (await ask(gateway, caller, {**CHAT, **change})).headers["x-buttress-cache"] == "miss"
    assert (await ask(gateway, caller)).headers["x-buttress-cache"] == "hit"


async def test_two_tokens_alike_for_two_hundred_characters_are_two_people(
    gateway: GatewayServer, stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    other = await new_caller(stack, database)
    tokens = []
    for person in (caller, other):
        claims = jwt.get_unverified_claims(person.access_token)
        # what is the same comes first: a cache that knew people by the beginning of their token would mix them up
        tokens.append(str(jwt.encode({"app_metadata": {"padding": "x" * 300}, **claims}, stack.jwt_secret)))
    assert tokens[0][:200] == tokens[1][:200]
    assert tokens[0] != tokens[1]
    mine, theirs = (
        Caller(person.user_id, person.email, token) for person, token in zip((caller, other), tokens, strict=True)
    )
    await ask(gateway, mine)
    await until_stored(database, caller.user_id)
    assert (await ask(gateway, mine)).headers["x-buttress-cache"] == "hit"
    assert (await ask(gateway, theirs)).headers["x-buttress-cache"] == "miss"


async def test_a_workspace_shares_its_answers_and_nobody_else_gets_them(
    gateway: GatewayServer, stack: RunningStack, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.reset()
    team, others = await make_team(stack, database), await make_team(stack, database)
    await join(database, others.workspace_id, team.member, "member")
    here = {**WISH, "x-buttress-workspace": str(team.workspace_id)}
    there = {**WISH, "x-buttress-workspace": str(others.workspace_id)}
    assert (await ask(gateway, team.member, headers=here)).headers["x-buttress-cache"] == "miss"
    await until_stored(database, team.workspace_id)
    assert (await ask(gateway, team.owner, headers=here)).headers["x-buttress-cache"] == "hit"
    assert (await ask(gateway, team.member, headers=there)).headers["x-buttress-cache"] == "miss"
    assert (await ask(gateway, team.member)).headers["x-buttress-cache"] == "miss"
    assert (await ask(gateway, team.stranger, headers=here)).status_code == 403


async def test_what_the_database_holds_can_be_read_by_nobody(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text="a secret answer"))
    await ask(gateway, caller)
    await until_stored(database, caller.user_id)
    row = await database.fetchrow("select * from gateway.cached_answers where tenant_id = $1", caller.user_id)
    assert row is not None
    assert b"secret" not in row["answer"]
    assert b"choices" not in row["answer"]


async def test_an_answer_that_somebody_changed_is_not_given(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    await ask(gateway, caller)
    await until_stored(database, caller.user_id)
    changed = "set answer = set_byte(answer, 20, get_byte(answer, 20) # 1) where tenant_id = $1"
    await database.execute(f"update gateway.cached_answers {changed}", caller.user_id)
    assert (await ask(gateway, caller)).headers["x-buttress-cache"] == "miss"


async def test_an_answer_is_given_again_until_it_is_too_old(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    await ask(gateway, caller)
    await until_stored(database, caller.user_id)
    aged = "update gateway.cached_answers set stored_at = stored_at - interval '300 seconds' where tenant_id = $1"
    await database.execute(aged, caller.user_id)
    assert (await ask(gateway, caller, headers={"x-buttress-cache": "max-age=500"})).headers[
        "x-buttress-cache"
    ] == "hit"
    assert (await ask(gateway, caller, headers={"x-buttress-cache": "max-age=299"})).headers[
        "x-buttress-cache"
    ] == "miss"


@pytest.mark.parametrize(
    ("step", "stream"),
    [
        (Step(text="cut", finish_reason="length"), False),
        (Step(text="cut", finish_reason="length"), True),
        (Step(text="no", finish_reason="content_filter"), True),
        (Step(text="one two three four", cut_after_chunks=2), True),
        (Step(text="one two three four", error_after_chunks=2), True),
        (Step(status=400), False),
    ],
    ids=["length", "length streamed", "filter", "cut", "error", "refused"],
)
async def test_an_answer_that_is_not_whole_is_never_given_again(
    *,
    step: Step,
    stream: bool,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(step)
    await ask(gateway, caller, {**CHAT, "stream": stream})
    fake_provider.reset()
    await nothing_stored(gateway, database, caller)


async def test_answers_given_again_count_as_requests_and_pass_spent_budgets(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    await ask(gateway, caller)
    await until_stored(database, caller.user_id)
    await set_limits(database, caller, nano_usd_per_month=1, requests_per_minute=3)
    assert (await ask(gateway, caller)).headers["x-buttress-cache"] == "hit"
    await set_limits(database, caller, requests_per_minute=1)
    refused = await ask(gateway, caller)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")


REMEMBERS = """
[[models]]
name = "fake/remembers"
context_window = 8192
max_output_tokens = 256
cache_ttl_s = 600

[[models.deployments]]
base_url = "{url}/v1"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}
"""


@pytest.fixture
async def remembering(stack: RunningStack, fake_provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway_within(stack, fake_provider, tmp_path, models_toml=NATIVE_MODELS_TOML + REMEMBERS) as gateway:
        yield gateway


async def test_a_model_may_remember_by_itself_unless_the_call_says_no(
    remembering: Gateway, caller: Caller, database: asyncpg.Connection
) -> None:
    async def state_of_cache(headers: Mapping[str, str]) -> str | None:
        body = {**CHAT, "model": "fake/remembers"}
        answer = await ask_within(remembering, {**caller.headers, **headers}, "/chat/completions", body)
        assert answer.status == 200
        return answer.headers.get("x-buttress-cache")

    assert await state_of_cache({}) == "miss"
    await until_stored(database, caller.user_id)
    assert await state_of_cache({}) == "hit"
    assert await state_of_cache({"x-buttress-cache": "no-store"}) is None


async def test_a_cache_that_is_slow_or_broken_costs_a_moment_and_no_call(
    remembering: Gateway, caller: Caller, stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is locked against readers: every look into the cache waits, and is given up."""
    monkeypatch.setattr(postgres, "_FIND_WITHIN", 0.02)  # of a deadline with the patience of tests
    holder = await asyncpg.connect(stack.database_url)
    try:
        async with holder.transaction():
            await holder.execute("lock table gateway.cached_answers in access exclusive mode")
            for _ in range(3):
                waited = await ask_within(remembering, {**caller.headers, **WISH}, "/chat/completions", CHAT)
                assert (waited.status, waited.headers["x-buttress-cache"]) == (200, "miss")
    finally:
        await holder.close()
    assert b'buttress_llm_cache_total{event="unavailable"}' in remembering.metrics.render()
