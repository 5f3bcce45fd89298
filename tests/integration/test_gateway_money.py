"""What calls cost, from the provider's figures to the row and the header: every class at its own rate, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import asyncpg
import orjson
import pytest

from tests.support.callers import Caller, new_caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import set_limits, usage_rows
from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack

ASK: dict[str, Any] = {  # Any: JSON
    "model": "fake/priced",
    "messages": [{"role": "user", "content": "Hi."}],
    "max_tokens": 100,
}
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 90,
    "total_tokens": 1090,
    "prompt_tokens_details": {
        "cached_tokens": 400,
        "audio_tokens": 30,
        "cache_creation_tokens": 300,
        "cache_creation_token_details": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    },
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 10},
}
# 270 fresh, 400 read, 100 and 200 written, 30 heard; 60 text, 20 reasoning, 10 spoken
NANO_USD = 270 * 1000 + 400 * 100 + 100 * 1250 + 200 * 2000 + 30 * 10_000 + 60 * 4000 + 20 * 5000 + 10 * 20_000


@pytest.fixture
async def caller(stack: RunningStack, database: asyncpg.Connection, fake_provider: FakeProvider) -> Caller:
    fake_provider.reset()
    caller = await new_caller(stack, database)
    await set_limits(database, caller, tokens_per_minute=1_000_000, nano_usd_per_month=10_000_000_000)
    return caller


def answer(usage: Mapping[str, object], **fields: object) -> str:
    chunks = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], **fields},
        {"id": "c", "choices": [], "usage": usage, **fields},
    ]
    return "".join(f"data: {orjson.dumps(chunk).decode()}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


async def streamed(gateway: GatewayServer, caller: Caller, **fields: object) -> tuple[int, Any]:  # Any: JSON
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", json={**ASK, "stream": True, **fields})
        return response.status_code, response.json() if response.status_code != 200 else None


async def test_every_class_is_charged_once_at_its_own_rate(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(sse=answer(USAGE)))
    assert (await streamed(gateway, caller))[0] == 200
    (row,) = await usage_rows(database, caller, count=1)
    assert (row["cost_nano_usd"], row["estimated"]) == (NANO_USD, False)


async def test_the_service_that_the_provider_gave_is_charged(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    for number, (given, nano_usd) in enumerate((("priority", 280_000), ("default", 140_000)), start=1):
        fake_provider.script(Step(sse=answer(usage, service_tier=given)))
        await streamed(gateway, caller, service_tier="priority")
        row = (await usage_rows(database, caller, count=number))[-1]
        assert row["cost_nano_usd"] == nano_usd
        assert row["held_nano_usd"] >= 100 * 8000  # the dearest that the call allows


async def test_a_service_or_a_cache_without_a_price_is_refused_before_the_provider_is_asked(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    status, body = await streamed(gateway, caller, service_tier="flex")
    assert (status, body["error"]["param"]) == (400, "service_tier")
    cached = {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}
    status, body = await streamed(gateway, caller, model="fake/chat", messages=[cached])
    assert (status, body["error"]["param"]) == (400, "messages[0]")
    assert "Writing to the provider's cache has no price" in body["error"]["message"]
    assert fake_provider.bill().counts.requests == 0
    assert (await streamed(gateway, caller, messages=[cached]))[0] == 200


async def test_a_prompt_whose_bytes_do_not_fit_is_counted_and_let_in_when_its_tokens_do(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    text = "The quick brown fox jumps over the lazy dog, and nobody minds. " * 300  # 19 kB, 4,200 tokens
    await set_limits(database, caller, tokens_per_minute=6000)
    messages = [{"role": "user", "content": text}]
    assert (await streamed(gateway, caller, messages=messages))[0] == 200
    (row,) = await usage_rows(database, caller, count=1)
    assert 4000 < row["held_tokens"] <= 6000
    status, body = await streamed(gateway, caller, messages=messages)
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    status, body = await streamed(gateway, caller, messages=[{"role": "user", "content": text * 2}])
    assert (status, body["error"]["code"]) == (400, "call_exceeds_limit")


async def test_money_is_enough_for_the_tokens_that_a_prompt_has(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    text = "The quick brown fox jumps over the lazy dog, and nobody minds. " * 300
    await set_limits(database, caller, nano_usd_per_month=14_000_000)
    assert (await streamed(gateway, caller, messages=[{"role": "user", "content": text}]))[0] == 200


async def test_the_header_says_what_the_row_says(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(input_tokens=12_345, cached_input_tokens=345, output_tokens=7))
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", json=ASK)
    (row,) = await usage_rows(database, caller, count=1)
    assert row["cost_nano_usd"] == 12_000 * 1000 + 345 * 100 + 7 * 4000
    assert Decimal(response.headers["x-buttress-cost-usd"]) * 10**9 == row["cost_nano_usd"]


AUDIO = {"type": "input_audio", "input_audio": {"data": "A" * 4000, "format": "wav"}}  # at most 101 tokens
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}}


async def test_sound_is_held_and_charged_as_sound(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 10, "prompt_tokens_details": {"audio_tokens": 40}}
    fake_provider.script(Step(sse=answer(usage)))
    assert (await streamed(gateway, caller, messages=[{"role": "user", "content": [AUDIO]}]))[0] == 200
    (row,) = await usage_rows(database, caller, count=1)
    assert (row["cost_nano_usd"], row["estimated"]) == (10 * 1000 + 40 * 10_000 + 10 * 4000, False)
    assert row["held_nano_usd"] > 101 * 10_000 + 100 * 4000
    assert row["held_tokens"] > 101 + 100


async def test_what_is_heard_without_a_price_and_files_without_a_bound_are_refused(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    heard = [{"role": "user", "content": [AUDIO]}]
    status, body = await streamed(gateway, caller, model="fake/chat", messages=heard)
    assert (status, body["error"]["param"]) == (400, "messages[0].content[0]")
    assert "Audio input has no price" in body["error"]["message"]
    stored: dict[str, Any] = {"type": "file", "file": {"file_id": "file-1"}}  # Any: JSON
    sent: dict[str, Any] = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0x"}}
    for part in (stored, sent):
        status, body = await streamed(gateway, caller, messages=[{"role": "user", "content": [part]}])
        assert (status, body["error"]["code"]) == (400, "unsupported_content")
    async with gateway.http(caller) as client:
        item = {
            "role": "user",
            "content": [{"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0x"}],
        }
        refused = await client.post("/responses", json={"model": "fake/gpt", "input": [item]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_content")
    assert fake_provider.bill().counts.requests == 0


async def test_a_pdf_is_held_as_all_that_the_model_can_read_and_charged_as_what_it_read(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(input_tokens=3000, output_tokens=10))
    asked = {"model": "fake/claude", "max_tokens": 200, "messages": [{"role": "user", "content": [PDF]}]}
    async with gateway.http(caller) as client:
        assert (await client.post("/messages", json=asked)).status_code == 200
    (row,) = await usage_rows(database, caller, count=1)
    assert (row["held_tokens"], row["held_nano_usd"]) == (8192 + 200, 8192 * 1000 + 200 * 2000)
    assert (row["cost_nano_usd"], row["estimated"]) == (3000 * 1000 + 10 * 2000, False)
    await set_limits(database, caller, tokens_per_minute=8000)  # less than a PDF may have
    async with gateway.http(caller) as client:
        refused = await client.post("/messages", json=asked)
    assert (refused.status_code, fake_provider.bill().counts.requests) == (400, 1)


RESPONSE_USAGE = {"input_tokens": 100, "output_tokens": 10}
CHAT_USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
NORMAL = 100 * 1000 + 10 * 2000


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
@pytest.mark.parametrize(
    ("asked", "given", "nano_usd", "dearest"),
    [
        (None, "default", NORMAL, 4000),  # the account's setting may make it priority
        (None, "priority", 2 * NORMAL, 4000),
        (None, None, 2 * NORMAL, 4000),  # whoever does not say what it gave may have given the dearest
        ("auto", "flex", NORMAL // 2, 4000),
        ("flex", "flex", NORMAL // 2, 2000),
        ("flex", "default", NORMAL, 2000),  # there was no room for it
        ("flex", None, NORMAL, 2000),
        ("priority", "default", NORMAL, 4000),
        ("priority", "tomorrow's", 2 * NORMAL, 4000),  # a word that nobody knows
    ],
)
async def test_a_call_costs_the_service_that_was_given_and_holds_the_dearest_that_may_be(  # noqa: PLR0917
    endpoint: str,
    asked: str | None,
    given: str | None,
    nano_usd: int,
    dearest: int,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    wish = {} if asked is None else {"service_tier": asked}
    told = {} if given is None else {"service_tier": given}
    if endpoint == "chat":
        fake_provider.script(Step(sse=answer(CHAT_USAGE, **told)))
        assert (await streamed(gateway, caller, model="fake/tiers", **wish))[0] == 200
    else:
        done = {"response": {"output": [], "status": "completed", "usage": RESPONSE_USAGE, **told}}
        event = orjson.dumps({"type": "response.completed", **done}).decode()
        fake_provider.script(Step(sse=f"event: response.completed\ndata: {event}\n\n"))
        body = {"model": "fake/tiers", "input": "Hi.", "max_output_tokens": 100, "stream": True, **wish}
        async with gateway.http(caller) as client:
            assert (await client.post("/responses", json=body)).status_code == 200
    (row,) = await usage_rows(database, caller, count=1)
    assert (row["cost_nano_usd"], row["estimated"]) == (nano_usd, given == "tomorrow's")
    prompt_tokens = row["held_tokens"] - 100
    assert row["held_nano_usd"] == prompt_tokens * dearest // 2 + 100 * dearest
