"""Who has its whole answer may leave. OpenAI's own client closes its connection at `[DONE]`, every time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.support.callers import Caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import usage_rows
from tests.support.gateway_server import GatewayServer
from tests.support.gateway_within import ask_within, gateway_within
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.stack import RunningStack

ASK: Any = [{"role": "user", "content": "What is the weather in Basel?"}]  # the SDK's own message types are unions
REMEMBER = {"x-buttress-cache": "max-age=600"}
CHAT = {"model": "fake/chat", "messages": ASK, "stream": True}


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        ("/chat/completions", CHAT, "data: [DONE]"),
        ("/messages", {**CHAT, "model": "fake/claude", "max_tokens": 64}, "event: message_stop"),
        ("/responses", {"model": "fake/chat", "input": "Weather?", "stream": True}, "event: response.completed"),
    ],
)
async def test_a_client_that_leaves_at_the_last_event_was_answered(
    *,
    path: str,
    body: dict[str, object],
    last: str,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    """The provider's connection, too, has still to end: what is waited for then is nobody's answer."""
    fake_provider.script(Step(text="It is sunny.", hold_before_end=True))
    async with gateway.http(caller) as client, client.stream("POST", path, json=body, headers=REMEMBER) as answer:
        lines = answer.aiter_lines()
        while await anext(lines) != last:
            pass
        while await anext(lines):  # the rest of that event
            pass
    await fake_provider.wait_for(client_gone=1)
    await was_answered(gateway, answer.headers["x-buttress-call-id"])
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("ok", False)
    await is_remembered(database, caller.user_id)


async def test_openais_client_was_answered(gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider) -> None:
    fake_provider.script(Step(text="It is sunny.", times=5))
    async with gateway.sdk(caller) as client:
        for _ in range(5):
            raw = await client.chat.completions.with_raw_response.create(**CHAT)
            stream: Any = raw.parse()
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "It is sunny."
            await was_answered(gateway, raw.headers["x-buttress-call-id"])


async def test_a_stop_after_the_last_event_breaks_nothing_off(
    stack: RunningStack, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider, tmp_path: Path
) -> None:
    fake_provider.script(Step(text="It is sunny.", hold_before_end=True))
    done = asyncio.Event()
    async with gateway_within(stack, fake_provider, tmp_path, models_toml=NATIVE_MODELS_TOML) as gateway:
        asking = asyncio.create_task(ask_within(gateway, caller.headers, "/chat/completions", CHAT, done=done))
        await done.wait()
    answer = await asking
    assert answer.body.endswith(b"data: [DONE]\n\n")
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("ok", False)


async def was_answered(gateway: GatewayServer, call_id: str) -> None:
    """The log has the call as one that was answered."""
    found = await gateway.told_of_calls("call_id", call_id)
    assert [(line["status"], line["error_code"], line["outcome"]) for line in found] == [(200, None, "ok")]


async def is_remembered(database: asyncpg.Connection, tenant_id: UUID) -> None:
    """The cache has the answer."""

    async def it_is() -> bool:
        query = "select count(*) from gateway.cached_answers where tenant_id = $1"
        return int(await database.fetchval(query, tenant_id)) == 1

    await eventually(it_is)
