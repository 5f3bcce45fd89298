"""Limits at the gateway's door: what is refused, in which words, and that not one call more gets through."""

import asyncio
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import asyncpg
import httpx
import openai
import pytest

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import open_holds, set_limits, usage_rows
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.stack import RunningStack

ASK: dict[str, object] = {"model": "fake/chat", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 10}
DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+(\.\d+)?s|\d+ms)")


@pytest.fixture(scope="module")
def second_gateway(stack: RunningStack, fake_provider: FakeProvider) -> Iterator[GatewayServer]:
    with gateway_on(stack, fake_provider, name="gateway-2", models_toml=NATIVE_MODELS_TOML) as server:
        yield server


async def test_every_answer_says_what_is_left(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    await set_limits(database, caller, requests_per_minute=2)  # nothing comes back between two calls, however slow
    async with gateway.http(caller) as client:
        whole = await client.post("/chat/completions", json=ASK)
        streamed = await client.post("/chat/completions", json={**ASK, "stream": True})
    for response in (whole, streamed):
        assert response.status_code == 200
        assert response.headers["x-ratelimit-limit-requests"] == "2"
        assert DURATION.fullmatch(response.headers["x-ratelimit-reset-requests"])
        assert DURATION.fullmatch(response.headers["x-ratelimit-reset-tokens"])
        assert response.headers["x-request-id"].startswith("req_")
    assert [whole.headers["x-ratelimit-remaining-requests"], streamed.headers["x-ratelimit-remaining-requests"]] == [
        "1",
        "0",
    ]


async def test_every_message_says_what_is_left_in_anthropics_words(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    await set_limits(database, caller, requests_per_minute=2)
    ask = {"model": "fake/claude", "messages": ASK["messages"], "max_tokens": 10}
    async with gateway.http(caller) as client:
        answers = [await client.post("/messages", json={**ask, "stream": stream}) for stream in (False, True)]
    for left, answer in zip(("1", "0"), answers, strict=True):
        assert answer.status_code == 200
        for what in ("requests", "tokens"):
            assert (
                datetime.fromisoformat(answer.headers[f"anthropic-ratelimit-{what}-reset"]).utcoffset() == timedelta()
            )
            assert int(answer.headers[f"anthropic-ratelimit-{what}-limit"]) > 0
        assert answer.headers["anthropic-ratelimit-requests-remaining"] == left


async def test_too_many_requests_are_refused_as_openai_refuses_them(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, requests_per_minute=2)
    async with gateway.http(caller) as client:
        answers = [await client.post("/chat/completions", json=ASK) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    error = answers[2].json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in answers[2].headers
    assert fake_provider.bill().counts.requests == 2


async def test_tokens_are_refused_as_openai_refuses_them(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, tokens_per_minute=400)
    fake_provider.script(Step(input_tokens=100, times=0))
    async with gateway.http(caller) as client:
        answer = await client.post("/chat/completions", json=ASK)
        assert answer.status_code == 200
        for _ in range(11):  # each costs what comes back in a quarter of a minute
            answer = await client.post("/chat/completions", json=ASK)
            if answer.status_code != 200:
                break
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "tokens")


async def test_a_call_larger_than_a_limit_is_not_worth_retrying(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    await set_limits(database, caller, tokens_per_minute=50)
    async with gateway.http(caller) as client:
        answer = await client.post("/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "call_exceeds_limit")
    assert answer.headers["x-should-retry"] == "false"
    assert "x-ratelimit-limit-tokens" in answer.headers


async def test_a_spent_budget_makes_exactly_one_attempt_of_the_official_client(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, nano_usd_per_month=400_000)
    fake_provider.script(Step(input_tokens=80, output_tokens=10, times=0))
    async with gateway.sdk(caller, max_retries=5) as client:
        attempts: list[httpx.Request] = []

        async def remember(request: httpx.Request) -> None:
            attempts.append(request)

        async def ask_until_refused() -> None:
            for _ in range(10):
                attempts.clear()
                await client.chat.completions.create(**ASK)  # type: ignore[call-overload]  # plain JSON

        client._client.event_hooks["request"].append(remember)
        with pytest.raises(openai.RateLimitError) as refusal:
            await ask_until_refused()
    assert len(attempts) == 1
    assert refusal.value.code == "insufficient_quota"
    assert refusal.value.type == "insufficient_quota"
    assert refusal.value.response.headers["x-should-retry"] == "false"
    spent = await database.fetchval("select sum(cost_nano_usd) from gateway.usage where user_id = $1", caller.user_id)
    assert 0 < spent <= 400_000


async def test_calls_in_flight_are_counted_until_they_end(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, calls_in_flight=1)
    fake_provider.script(Step(hold_before_headers=True))
    async with gateway.http(caller) as client:
        first = asyncio.create_task(client.post("/chat/completions", json=ASK))
        await fake_provider.wait_for(held=1)
        second = await client.post("/chat/completions", json=ASK)
        fake_provider.release()
        assert (await first).status_code == 200
        third = await client.post("/chat/completions", json=ASK)
    assert (second.status_code, third.status_code) == (429, 200)


async def test_one_call_after_the_other_never_meets_its_own_shadow(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    await set_limits(database, caller, calls_in_flight=1, requests_per_minute=1000, tokens_per_minute=1_000_000)
    async with gateway.http(caller) as client:
        for streamed in [False, True] * 15:
            answer = await client.post("/chat/completions", json={**ASK, "stream": streamed})
            assert answer.status_code == 200


async def test_of_two_hundred_calls_at_once_through_two_gateways_exactly_fifty_pass(
    gateway: GatewayServer,
    second_gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    # A rate refills while the test runs: what came back meanwhile may pass as well.
    await set_limits(database, caller, requests_per_minute=50, tokens_per_minute=1_000_000, calls_in_flight=200)
    started = await database.fetchval("select clock_timestamp()")
    statuses = await _ask_at_once([gateway, second_gateway], caller, 200)
    elapsed_s = (await database.fetchval("select clock_timestamp()") - started).total_seconds()
    came_back = int(elapsed_s * 50 / 60)
    assert 50 <= statuses.count(200) <= 50 + came_back
    assert statuses.count(429) == 200 - statuses.count(200)
    assert fake_provider.bill().counts.requests == statuses.count(200)


async def test_of_two_hundred_calls_at_once_through_two_gateways_exactly_fifty_are_in_flight(
    gateway: GatewayServer,
    second_gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    await set_limits(database, caller, requests_per_minute=10_000, tokens_per_minute=10_000_000, calls_in_flight=50)
    fake_provider.script(Step(hold_before_headers=True, times=0))
    async with httpx.AsyncClient(
        headers=caller.headers, timeout=60, limits=httpx.Limits(max_connections=200)
    ) as client:
        doors = [gateway.base_url, second_gateway.base_url]
        waiting = {
            asyncio.create_task(client.post(f"{doors[number % 2]}/chat/completions", json=ASK)) for number in range(200)
        }
        refused: set[asyncio.Task[httpx.Response]] = set()
        while len(refused) < 150:
            done, waiting = await asyncio.wait(waiting, timeout=60, return_when=asyncio.FIRST_COMPLETED)
            assert done, f"only {len(refused)} were refused"
            refused |= done
        assert {task.result().status_code for task in refused} == {429}
        await fake_provider.wait_for(held=50, timeout_s=30)
        assert await open_holds(database, caller) == 50
        fake_provider.release()
        assert [(await task).status_code for task in waiting] == [200] * 50
    assert fake_provider.bill().counts.requests == 50


@pytest.mark.parametrize(("limit", "most"), [("nano_usd_per_month", 1_000_000), ("tokens_per_day", 800)])
async def test_a_budget_under_a_race_is_never_overspent(
    *,
    limit: str,
    most: int,
    gateway: GatewayServer,
    second_gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    roomy = {"requests_per_minute": 10_000, "tokens_per_minute": 10_000_000, "calls_in_flight": 200}
    await set_limits(database, caller, **roomy, **{limit: most})
    fake_provider.script(Step(times=0, input_tokens=30, output_tokens=10))
    statuses = await _ask_at_once([gateway, second_gateway], caller, 200)
    passed = statuses.count(200)
    assert 0 < passed < 200
    rows = await usage_rows(database, caller, count=passed)
    spent = sum(row["cost_nano_usd"] for row in rows)
    tokens = sum(row["input_tokens"] + row["output_tokens"] for row in rows)
    bill = fake_provider.bill()
    assert spent == bill.input_tokens * 1000 + bill.output_tokens * 2000
    assert tokens == bill.input_tokens + bill.output_tokens
    assert {"nano_usd_per_month": spent, "tokens_per_day": tokens}[limit] <= most


async def _ask_at_once(gateways: list[GatewayServer], caller: Caller, calls: int) -> list[int]:
    """The statuses of that many calls, spread over the gateways, all on their way at once; two in four are streamed."""
    limits = httpx.Limits(max_connections=calls)
    async with httpx.AsyncClient(headers=caller.headers, timeout=60, limits=limits) as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    f"{gateways[number % len(gateways)].base_url}/chat/completions",
                    json={**ASK, "stream": number % 4 > 1},
                )
                for number in range(calls)
            )
        )
    return [answer.status_code for answer in answers]
