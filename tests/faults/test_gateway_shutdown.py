"""SIGTERM with calls open: nothing new is taken, streams finish or end with an error event, and all is settled."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import anthropic
import asyncpg
import httpx
import openai
import pytest

from stack.processes import group_members
from tests.support.arrivals import Arrivals, all_came
from tests.support.callers import Caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import none_held, open_holds, usage_rows
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.stack import RunningStack

STREAM = {"model": "fake/chat", "stream": True, "messages": [{"role": "user", "content": "Tell me."}]}
GRACE_S = 1.0
LONGER_THAN_A_BUSY_MACHINE_S = 15.0
HELD_AFTER_CHUNKS = 5
RESPONSES = """
[[models]]
name = "fake/responses"
context_window = 8192
max_output_tokens = 256
endpoints = ["responses"]

[[models.deployments]]
base_url = "{url}/v1"
native = ["responses"]
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}
"""


@pytest.fixture
def grace_s() -> float:
    """What running calls have: short, where they are ended at its end."""
    return GRACE_S


@pytest.fixture
def leaving(stack: RunningStack, fake_provider: FakeProvider, grace_s: float) -> Iterator[GatewayServer]:
    """A gateway of its own for a test that ends it."""
    environment = {"BUTTRESS_GATEWAY_GRACE_S": str(grace_s)}
    models = NATIVE_MODELS_TOML + RESPONSES
    with gateway_on(stack, fake_provider, name="leaving", models_toml=models, extra_environment=environment) as server:
        yield server


async def ended(server: GatewayServer) -> None:
    """The server has ended by itself, with status 0."""

    async def has_ended() -> bool:
        return server.child.exit_code() is not None

    await eventually(has_ended, timeout_s=60)
    assert server.child.exit_code() == 0


@pytest.mark.parametrize("grace_s", [LONGER_THAN_A_BUSY_MACHINE_S])
async def test_a_stream_that_ends_within_the_grace_period_ends_whole(
    leaving: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=6, hold_after_chunks=2))
    async with leaving.http(caller) as client, client.stream("POST", "/chat/completions", json=STREAM) as response:
        lines = response.aiter_lines()
        await anext(lines)
        await fake_provider.wait_for(held=1)
        leaving.terminate()
        await told_to_stop(leaving)
        fake_provider.release()
        assert "data: [DONE]" in [line async for line in lines]
    await ended(leaving)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("ok", False, 6)


async def test_streams_that_do_not_end_get_an_error_event_and_are_settled(
    leaving: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=90, hold_after_chunks=HELD_AFTER_CHUNKS, times=0))

    arrivals = [Arrivals(HELD_AFTER_CHUNKS) for _ in range(8)]

    async def read(came: Arrivals) -> list[str]:
        async with leaving.http(caller) as client, client.stream("POST", "/chat/completions", json=STREAM) as response:
            lines = came.of(response.aiter_lines(), lambda line: re.search('"content":"[^"]', line) is not None)
            return [line async for line in lines if line]

    streams = [asyncio.create_task(read(came)) for came in arrivals]
    await all_came(arrivals)
    leaving.terminate()
    for lines in await asyncio.gather(*streams):
        assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"
    await ended(leaving)
    await fake_provider.wait_for(client_gone=8)
    rows = await usage_rows(database, caller, count=8)
    assert {(row["outcome"], row["output_tokens"], row["estimated"]) for row in rows} == {
        ("cut", HELD_AFTER_CHUNKS, True)
    }
    await none_held(database, caller)


async def test_streams_of_the_other_formats_end_with_the_error_that_their_sdks_raise(
    leaving: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=90, hold_after_chunks=HELD_AFTER_CHUNKS, times=0))

    of_response, of_message = Arrivals(HELD_AFTER_CHUNKS), Arrivals(HELD_AFTER_CHUNKS)

    async def read_response(client: openai.AsyncOpenAI) -> openai.APIError:
        events = await client.responses.create(
            model="fake/responses", input="Tell me.", max_output_tokens=200, stream=True
        )
        with pytest.raises(openai.APIError) as told:
            async for _ in of_response.of(events, lambda event: event.type == "response.output_text.delta"):
                pass
        return told.value

    async def read_message(client: anthropic.AsyncAnthropic) -> anthropic.APIStatusError:
        events = await client.messages.create(
            model="fake/claude", messages=[{"role": "user", "content": "Tell me."}], max_tokens=200, stream=True
        )
        with pytest.raises(anthropic.APIStatusError) as told:
            async for _ in of_message.of(events, lambda event: event.type == "content_block_delta"):
                pass
        return told.value

    async with leaving.sdk(caller) as openais, leaving.anthropic(caller) as anthropics:
        response = asyncio.create_task(read_response(openais))
        message = asyncio.create_task(read_message(anthropics))
        await all_came([of_response, of_message])
        leaving.terminate()
        assert (await response).code == "shutting_down"
        told = (await message).body
        assert isinstance(told, dict)
        assert (told["error"]["type"], told["error"]["details"]) == (
            "overloaded_error",
            {"error_code": "shutting_down"},
        )
    await ended(leaving)
    rows = await usage_rows(database, caller, count=2)
    assert {(row["outcome"], row["output_tokens"], row["estimated"]) for row in rows} == {
        ("cut", HELD_AFTER_CHUNKS, True)
    }
    assert {row["endpoint"] for row in rows} == {"responses", "messages"}
    await none_held(database, caller)


async def test_an_answer_that_is_not_streamed_is_ended_with_503_and_charged(
    leaving: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(hold_before_headers=True))
    async with leaving.http(caller) as client:
        asking = asyncio.create_task(client.post("/chat/completions", json={**STREAM, "stream": False}))
        await fake_provider.wait_for(held=1)
        leaving.terminate()
        answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    await ended(leaving)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["cost_nano_usd"]) == ("cut", row["held_nano_usd"])


async def test_a_client_that_leaves_while_the_server_stops_is_settled_too(
    leaving: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=90, hold_after_chunks=3))
    async with leaving.http(caller) as client, client.stream("POST", "/chat/completions", json=STREAM) as response:
        lines = response.aiter_lines()  # kept: an iterator that is dropped closes the response
        await anext(lines)
        await fake_provider.wait_for(held=1)
        leaving.terminate()
    await ended(leaving)
    [row] = await usage_rows(database, caller, count=1)
    # whoever is noticed first, the client that left or the end of the grace period: the same is charged
    assert row["outcome"] in ("client_gone", "cut")
    assert (row["output_tokens"], row["estimated"]) == (3, True)


async def test_a_lame_duck_serves_everything_and_tells_everybody_to_go(
    stack: RunningStack, caller: Caller, fake_provider: FakeProvider
) -> None:
    environment = {"BUTTRESS_GATEWAY_LAME_DUCK_S": "18", "BUTTRESS_GATEWAY_GRACE_S": "1"}
    with gateway_on(
        stack, fake_provider, name="lame-duck", models_toml=NATIVE_MODELS_TOML, extra_environment=environment
    ) as server:
        async with server.http(caller) as client:
            before = await client.post("/chat/completions", json={**STREAM, "stream": False})
            server.terminate()
            server.terminate()  # as a process manager that tells every process, and the server's parent
            await server.answers("/health/ready", 503)
            after = await client.post("/chat/completions", json={**STREAM, "stream": False})
            streamed = await client.post("/chat/completions", json=STREAM)
        assert [answer.status_code for answer in (before, after, streamed)] == [200, 200, 200]
        assert [answer.headers.get("connection") for answer in (before, after, streamed)] == [None, "close", "close"]
        assert "data: [DONE]" in streamed.text
        worker = next(pid for pid in group_members(server.child.process.pid) if pid != server.child.process.pid)
        os.kill(worker, signal.SIGINT)  # which never waits, so that this test need not
        await ended(server)


async def test_whoever_reads_a_stream_beyond_the_lame_duck_is_served_once_more_and_told_to_go(
    stack: RunningStack, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=6, hold_after_chunks=2))
    environment = {"BUTTRESS_GATEWAY_LAME_DUCK_S": "0.2", "BUTTRESS_GATEWAY_GRACE_S": "15"}
    models = NATIVE_MODELS_TOML
    with gateway_on(
        stack, fake_provider, name="lame-duck", models_toml=models, extra_environment=environment
    ) as server:
        url = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        with closing(writer):
            for body in (STREAM, {**STREAM, "stream": False}):  # the second is read when the first is answered
                writer.write(request(server, caller, body))
            await fake_provider.wait_for(held=1)
            server.terminate()
            await server.answers("/health/ready", 503)
            await asyncio.sleep(0.4)  # the lame duck's own time is over, which nothing tells
            fake_provider.release()
            answers = await reader.read()  # until it is closed
        _, streamed, after = answers.split(b"HTTP/1.1 ")
        assert b"data: [DONE]" in streamed
        assert b"connection:" not in streamed
        assert after.startswith(b"200 ")
        assert b"connection: close" in after
        await ended(server)


async def test_a_killed_gateways_holds_are_reaped_at_what_was_held(
    *,
    gateway: GatewayServer,  # which goes on, and reaps
    leaving: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(Step(output_tokens=90, hold_after_chunks=3))

    async def read_until_killed() -> None:
        async with leaving.http(caller) as client, client.stream("POST", "/chat/completions", json=STREAM) as response:
            async for _ in response.aiter_lines():
                if fake_provider.bill().counts.held:
                    kill(leaving)

    with pytest.raises(httpx.HTTPError):
        await read_until_killed()
    assert await open_holds(database, caller) == 1
    # the lease's end, without waiting for it
    await database.execute(
        "update gateway.holds set held_at = now() - interval '1 hour', lease_expires_at = now() - interval '1 second'"
        " where user_id = $1",
        caller.user_id,
    )
    [row] = await usage_rows(database, caller, count=1)
    assert (row["state"], row["cost_nano_usd"]) == ("expired", row["held_nano_usd"])
    await none_held(database, caller)


def request(server: GatewayServer, caller: Caller, body: object) -> bytes:
    """A call as it goes over the connection."""
    content = json.dumps(body).encode()
    head = [
        "POST /llm/v1/chat/completions HTTP/1.1",
        f"host: {urlsplit(server.url).netloc}",
        f"authorization: Bearer {caller.access_token}",
        "content-type: application/json",
        f"content-length: {len(content)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + content


async def told_to_stop(server: GatewayServer) -> None:
    """The server knows that it shall stop."""

    async def drains() -> bool:
        return bool(server.log_lines("gateway_draining"))

    await eventually(drains)


def kill(server: GatewayServer) -> None:
    """The server's processes are gone at once: its supervisor and its worker."""
    os.killpg(server.child.process.pid, signal.SIGKILL)
