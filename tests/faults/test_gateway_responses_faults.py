"""A provider of responses that misbehaves within its stream: what the client is told, and what the call costs."""

import json
from typing import Any

import asyncpg
import pytest

from tests.support.callers import Caller, new_caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import open_holds, usage_rows
from tests.support.gateway_server import OUTPUT_NANO_USD, PROVIDER_KEY, GatewayServer
from tests.support.stack import RunningStack

Json = dict[str, Any]  # events are JSON of many shapes
ASK: Json = {"model": "fake/chat", "input": "Tell me.", "stream": True}
DELTA = "response.output_text.delta"


async def stream(gateway: GatewayServer, caller: Caller, **fields: object) -> list[Json]:
    """The events of a streamed response; each is named after its type and numbered after the one before."""
    events: list[Json] = []
    async with (
        gateway.http(caller) as client,
        client.stream("POST", "/responses", json={**ASK, **fields}) as response,
    ):
        assert response.status_code == 200, await response.aread()
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                events.append(json.loads(line[6:]))
                assert events[-1]["type"] == name
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


async def cost(database: asyncpg.Connection, caller: Caller, outcome: str) -> int:
    """What the one call cost, nano-dollars; it was estimated, and is not held any more."""
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == (outcome, True)
    assert row["cost_nano_usd"] <= row["held_nano_usd"]
    assert await open_holds(database, caller) == 0
    return int(row["cost_nano_usd"])


async def prompt_cost(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider, **fields: object
) -> int:
    """What this prompt is charged when nobody counts it."""
    fake_provider.script(Step(output_tokens=1, usage="missing"))
    await stream(gateway, caller, **fields)
    return await cost(database, caller, "ok") - OUTPUT_NANO_USD


@pytest.mark.parametrize(
    ("step", "model", "code", "chunks"),
    [
        (Step(output_tokens=50, cut_after_chunks=6, cut="end"), "fake/chat", "provider_stream_cut", 6),
        (Step(output_tokens=50, cut_after_chunks=6, cut="close"), "fake/chat", "provider_stream_cut", 6),
        (Step(output_tokens=50, error_after_chunks=3), "fake/chat", "provider_stream_failed", 3),
        (Step(endless=True, ignores_max_tokens=True), "fake/chat", "output_limit_reached", 20),
        (Step(output_tokens=50, hold_after_chunks=4), "fake/impatient-of-silence", "provider_timeout", 4),
    ],
    ids=["ends early", "closes", "error event", "endless", "silent"],
)
async def test_a_broken_stream_ends_with_an_error_event_and_costs_what_came(
    *,
    step: Step,
    model: str,
    code: str,
    chunks: int,
    gateway: GatewayServer,
    stack: RunningStack,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fields: Json = {"model": model, "max_output_tokens": 20}
    of_prompt = await prompt_cost(gateway, await new_caller(stack, database), database, fake_provider, **fields)
    fake_provider.script(step)
    *events, last = await stream(gateway, caller, **fields)
    assert last["type"] == "error"
    assert last["code"] == last["error"]["code"] == code
    assert last["message"] == last["error"]["message"]
    assert last["param"] is None
    assert sum(event["type"] == DELTA for event in events) == chunks
    assert not any(event["type"] == "response.completed" for event in events)
    assert await cost(database, caller, "cut") == of_prompt + chunks * OUTPUT_NANO_USD


async def test_an_error_within_a_stream_is_told_in_our_own_words(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(error_after_chunks=3, error_message=f"bad key {PROVIDER_KEY}"))
    assert PROVIDER_KEY not in json.dumps(await stream(gateway, caller))


@pytest.mark.parametrize("usage", ["missing", "null"])
async def test_a_stream_without_usage_is_charged_by_its_chunks(
    usage: Any, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=40, usage=usage, keep_alive_comments=True))
    assert (await stream(gateway, caller))[-1]["type"] == "response.completed"
    assert await cost(database, caller, "ok") > 40 * OUTPUT_NANO_USD


async def test_a_stream_of_huge_chunks_is_cut(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=64, padding_bytes=1 << 20))
    assert (await stream(gateway, caller, max_output_tokens=64))[-1]["code"] == "output_limit_reached"


async def test_a_provider_that_refuses_leaves_the_stream_to_the_next(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    assert (await stream(gateway, caller, model="fake/with-fallback"))[-1]["type"] == "response.completed"
    [row] = await usage_rows(database, caller, count=1)
    assert row["deployment"] == "fake/chat#1"
