"""A client that leaves: the provider's connection is closed, and one usage row says what was used, never nothing."""

import asyncio
import json
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import none_held, set_limits, usage_rows
from tests.support.gateway_server import INPUT_NANO_USD, OUTPUT_NANO_USD, GatewayServer
from tests.support.gateway_within import ask_within, gateway_within
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.stack import RunningStack

MESSAGE = {"model": "fake/claude", "stream": True, "max_tokens": 200, "messages": [{"role": "user", "content": "So?"}]}
STREAM = {"model": "fake/chat", "stream": True, "messages": [{"role": "user", "content": "Tell me."}]}


@pytest.mark.parametrize(("model", "chunks"), [("fake/chat", 1), ("fake/chat", 7), ("fake/claude", 2)])
async def test_a_client_that_leaves_a_stream_pays_for_what_came(
    *,
    model: str,  # the last one's answers are translated
    chunks: int,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(Step(output_tokens=200, hold_after_chunks=chunks))
    body = {**STREAM, "model": model}
    async with gateway.http(caller) as client, client.stream("POST", "/chat/completions", json=body) as response:
        assert response.status_code == 200
        seen = 0
        async for line in response.aiter_lines():
            if line.startswith("data: ") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                seen += 1
            if seen == chunks:
                break
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["state"], row["outcome"], row["estimated"]) == ("settled", "client_gone", True)
    assert row["output_tokens"] == chunks
    assert row["input_tokens"] >= 1
    assert row["cost_nano_usd"] == row["input_tokens"] * INPUT_NANO_USD + chunks * OUTPUT_NANO_USD
    await none_held(database, caller)


# Each of these words is one token to OpenAI's models, and to the fake provider.
PLAIN_WORDS = "the of and to in is that for it as with was on be by at this from or an".split()  # noqa: SIM905
PLAIN = " ".join(PLAIN_WORDS * 15)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/chat/completions", {"messages": [{"role": "user", "content": PLAIN}]}),
        ("/messages", {"messages": [{"role": "user", "content": PLAIN}], "max_tokens": 200}),
        ("/responses", {"input": PLAIN}),
    ],
)
async def test_whoever_leaves_at_the_fifth_chunk_pays_what_the_provider_bills_within_five_percent(  # noqa: PLR0917
    path: str,
    asked: dict[str, object],
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(Step(text=PLAIN, hold_after_chunks=5))
    body = {"model": "fake/gpt", "stream": True, **asked}
    async with gateway.http(caller) as client, client.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if '" in"' in line:  # the fifth word
                break
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    bill = fake_provider.bill()
    billed = bill.input_tokens * INPUT_NANO_USD + bill.output_tokens * OUTPUT_NANO_USD
    assert (row["outcome"], row["estimated"]) == ("client_gone", True)
    assert row["output_tokens"] == bill.output_tokens == 5
    assert billed <= row["cost_nano_usd"] <= 1.05 * billed
    told = await gateway.told_of_calls("user_id", str(caller.user_id))
    assert [one["cost_nano_usd"] for one in told] == [row["cost_nano_usd"]]
    await none_held(database, caller)


async def test_a_client_that_leaves_before_the_first_chunk_pays_for_the_prompt(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(hold_after_chunks=0))
    await _leave_once_held(gateway, caller, fake_provider, STREAM)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("client_gone", True, 0)
    assert row["cost_nano_usd"] == row["input_tokens"] * INPUT_NANO_USD > 0


@pytest.mark.parametrize("chunks", [1, 5])
async def test_a_client_that_leaves_a_streamed_message_pays_for_the_prompt_and_what_came(
    chunks: int, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=200, hold_after_chunks=chunks))
    async with gateway.http(caller) as client, client.stream("POST", "/messages", json=MESSAGE) as response:
        seen = 0
        async for line in response.aiter_lines():
            seen += line == "event: content_block_delta"
            if seen == chunks and line.startswith("data: "):
                break
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("client_gone", True, chunks)
    assert row["input_tokens"] == fake_provider.bill().input_tokens  # told in the first event
    await none_held(database, caller)


async def test_a_client_that_leaves_a_message_before_its_first_event_pays_for_the_prompt(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(hold_after_chunks=0))
    await _leave_once_held(gateway, caller, fake_provider, MESSAGE, path="/messages")
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("client_gone", True, 0)
    assert row["cost_nano_usd"] > 0


async def test_a_client_that_leaves_before_the_provider_answered_pays_for_the_prompt(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(hold_before_headers=True))
    await _leave_once_held(gateway, caller, fake_provider, STREAM)
    [row] = await usage_rows(database, caller, count=1)
    assert row["outcome"] == "client_gone"
    assert row["cost_nano_usd"] > 0


async def test_a_client_that_leaves_an_answer_that_is_not_streamed_pays_what_it_may_have_cost(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(hold_before_headers=True))
    await _leave_once_held(gateway, caller, fake_provider, {**STREAM, "stream": False, "max_tokens": 20})
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("client_gone", True, 20)
    assert row["cost_nano_usd"] == row["held_nano_usd"]


async def test_a_client_that_leaves_after_the_last_chunk_pays_exactly(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=5))
    async with gateway.http(caller) as client, client.stream("POST", "/chat/completions", json=STREAM) as response:
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                break
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("ok", False, 5)


@pytest.mark.parametrize("chunks", [30, 50])
async def test_what_had_come_while_the_gateway_stood_still_is_charged_when_the_client_has_left(
    chunks: int, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=50, hold_after_chunks=1, cut_after_chunks=None if chunks == 50 else chunks))
    [worker] = psutil.Process(gateway.child.process.pid).children()
    async with gateway.http(caller) as client, client.stream("POST", "/chat/completions", json=STREAM) as response:
        async for line in response.aiter_lines():
            if "word0" in line:
                break
        worker.suspend()
        try:
            fake_provider.release()
            await fake_provider.wait_for(closed=1)
            await response.aclose()
        finally:
            worker.resume()
    [row] = await usage_rows(database, caller, count=1)
    assert row["output_tokens"] == fake_provider.bill().output_tokens == chunks


async def test_what_had_come_for_a_client_that_accepts_nothing_is_charged_when_it_leaves(
    stack: RunningStack, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider, tmp_path: Path
) -> None:
    fake_provider.script(Step(output_tokens=50, hold_after_chunks=1))
    leaves = asyncio.Event()
    async with gateway_within(stack, fake_provider, tmp_path, models_toml=NATIVE_MODELS_TOML) as gateway:
        asking = asyncio.create_task(
            ask_within(gateway, caller.headers, "/chat/completions", STREAM, stuck_until=leaves)
        )
        await fake_provider.wait_for(held=1)
        fake_provider.release()
        await fake_provider.wait_for(closed=1)
        leaves.set()
        await asking
        [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("client_gone", False)
    assert row["output_tokens"] == fake_provider.bill().output_tokens == 50


async def test_two_hundred_clients_that_leave_leave_nothing_behind(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, requests_per_minute=1000, tokens_per_minute=1_000_000, calls_in_flight=200)
    fake_provider.script(Step(times=200, output_tokens=100, hold_after_chunks=3))
    arrived = asyncio.Semaphore(40)

    async def leave() -> None:
        async with (
            arrived,
            gateway.http(caller) as client,
            client.stream("POST", "/chat/completions", json=STREAM) as response,
        ):
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    return

    await asyncio.gather(*(leave() for _ in range(200)))
    await fake_provider.wait_for(client_gone=200, timeout_s=30)
    rows = await usage_rows(database, caller, count=200)
    assert {row["outcome"] for row in rows} == {"client_gone"}
    assert all(row["cost_nano_usd"] > 0 for row in rows)
    await none_held(database, caller)
    in_flight = await database.fetchval("select in_flight from gateway.meters where subject_id = $1", caller.user_id)
    assert in_flight == 0


async def _leave_once_held(
    gateway: GatewayServer,
    caller: Caller,
    provider: FakeProvider,
    body: dict[str, object],
    path: str = "/chat/completions",
) -> None:
    async with gateway.http(caller) as client:
        asking = asyncio.create_task(client.post(path, json=body))
        await provider.wait_for(held=1)
        asking.cancel()
        with pytest.raises((asyncio.CancelledError, httpx.HTTPError)):
            await asking
    await provider.wait_for(client_gone=1)
