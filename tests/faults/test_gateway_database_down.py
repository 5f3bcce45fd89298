"""Without its database the gateway refuses, at once and in the right words: no call is free, nobody is signed out."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from urllib.parse import urlsplit

import asyncpg
import httpx
import openai
import pytest

from llm_gateway.times import SETTLE_AT_EXIT_S
from tests.support.api_keys import new_key
from tests.support.callers import Caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import none_held, open_holds, usage_rows
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.pools import AS_IN_SERVICE_S, PATIENCE_S
from tests.support.stack import RunningStack, free_ports
from tests.support.tcp_gate import TcpGate, tcp_gate

METRICS_TOKEN = "metrics-token-of-a-gateway-cut-off"
# Whoever does not give up by itself waits for ever.
A_SECOND_AND_A_BUSY_MACHINE_S = 12.0
OUT_OF_REACH = {"ledger_unavailable", "callers_unavailable"}
STREAM = {"model": "fake/chat", "stream": True, "messages": [{"role": "user", "content": "Hi."}]}
ASK: dict[str, object] = {"model": "fake/chat", "messages": [{"role": "user", "content": "Hi."}]}


def behind(stack: RunningStack, gate: TcpGate) -> dict[str, str]:
    """The environment of a gateway that reaches its database through the gate."""
    direct = urlsplit(stack.gateway_database_url)
    return {
        "BUTTRESS_GATEWAY_DATABASE_URL": direct._replace(
            netloc=direct.netloc.replace(f":{direct.port}", f":{gate.port}")
        ).geturl()
    }


@asynccontextmanager
async def gateway_behind(
    gate: TcpGate,
    stack: RunningStack,
    provider: FakeProvider,
    *,
    name: str,
    database_deadline_s: float = PATIENCE_S,
    **environment: str,
) -> AsyncIterator[GatewayServer]:
    """A gateway whose database is behind the gate. The gate is in this loop, which goes on while the gateway ends."""
    running = gateway_on(
        stack,
        provider,
        name=name,
        models_toml=NATIVE_MODELS_TOML,
        database_deadline_s=database_deadline_s,
        wait=False,
        extra_environment={**behind(stack, gate), **environment},
    )
    server = running.__enter__()
    try:
        yield server
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.fixture
async def gate(stack: RunningStack) -> AsyncIterator[TcpGate]:
    """What stands between the gateway and its database."""
    async with tcp_gate(stack.config.db_port, free_ports(1)[0]) as gate:
        yield gate


@pytest.fixture
def database_deadline_s() -> float:
    """Of the gateway. Patience does not make it wait for a gate that is shut."""
    return PATIENCE_S


@pytest.fixture
async def cut_off(
    stack: RunningStack, gate: TcpGate, fake_provider: FakeProvider, database_deadline_s: float
) -> AsyncIterator[GatewayServer]:
    """A gateway whose database is behind the gate."""
    fake_provider.reset()
    environment = {"BUTTRESS_METRICS_TOKEN": METRICS_TOKEN}
    async with gateway_behind(
        gate, stack, fake_provider, name="cut-off", database_deadline_s=database_deadline_s, **environment
    ) as server:
        await server.ready()
        yield server


@pytest.mark.parametrize("database_deadline_s", [AS_IN_SERVICE_S])
@pytest.mark.parametrize("how", ["shut", "stall"])
async def test_calls_are_refused_with_503_within_a_second_or_so_and_work_again_afterwards(
    *,
    how: str,
    cut_off: GatewayServer,
    gate: TcpGate,
    caller: Caller,
    fake_provider: FakeProvider,
    stack: RunningStack,
    database: asyncpg.Connection,
) -> None:
    key = await new_key(stack, database, caller)
    async with cut_off.http(caller) as client:
        await served(client)
        await (gate.shut() if how == "shut" else gate.stall())
        for stream, credential in ((False, {}), (True, {}), (False, key.headers)):
            began_s = time.monotonic()
            answer = await client.post("/chat/completions", json={**ASK, "stream": stream}, headers=credential)
            assert time.monotonic() - began_s < A_SECOND_AND_A_BUSY_MACHINE_S
            assert answer.status_code == 503
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert answer.json()["error"]["code"] in OUT_OF_REACH
            assert int(answer.headers["retry-after"]) >= 1
        ready = await client.get(f"{cut_off.url}/health/ready")
        live = await client.get(f"{cut_off.url}/health/live")
        assert (ready.status_code, live.status_code) == (503, 200)
        assert (await client.get("/models", headers=key.headers)).status_code == 503
        assert fake_provider.bill().counts.requests == 1
        shown = await client.get(f"{cut_off.url}/metrics", headers={"authorization": f"Bearer {METRICS_TOKEN}"})
        told = re.findall(r'^buttress_llm_unavailable_total{what="(\w+)"} (\S+)$', shown.text, re.MULTILINE)
        assert {what for what, _ in told} <= OUT_OF_REACH
        assert sum(float(times) for _, times in told) >= 3
        await gate.open()
        await served(client, key.headers)


async def test_the_official_client_comes_back_by_itself(cut_off: GatewayServer, gate: TcpGate, caller: Caller) -> None:
    await gate.shut()
    async with cut_off.sdk(caller) as client:
        with pytest.raises(openai.InternalServerError) as refusal:
            await client.chat.completions.create(**ASK)  # type: ignore[call-overload]  # plain JSON
        assert refusal.value.status_code == 503
        await gate.open()
        await client.with_options(max_retries=5).chat.completions.create(**ASK)  # type: ignore[call-overload]


async def test_a_call_that_ends_while_the_database_is_away_is_settled_when_it_is_back(
    cut_off: GatewayServer, gate: TcpGate, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=4, hold_before_headers=True))
    async with cut_off.sdk(caller) as client:
        asking = asyncio.create_task(client.chat.completions.create(**ASK))  # type: ignore[call-overload]
        await fake_provider.wait_for(held=1)
        await gate.shut()
        fake_provider.release()
        assert (await asking).usage.completion_tokens == 4
        assert await open_holds(database, caller) == 1
        await gate.open()
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("ok", False, 4)
    await none_held(database, caller)


async def test_a_stop_does_not_wait_for_a_database_that_is_away(
    stack: RunningStack, gate: TcpGate, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=90, hold_after_chunks=5))
    environment = {"BUTTRESS_GATEWAY_GRACE_S": "0.5"}
    async with gateway_behind(
        gate, stack, fake_provider, name="leaves-alone", database_deadline_s=AS_IN_SERVICE_S, **environment
    ) as server:
        await server.ready()
        async with server.http(caller) as client, streaming(client) as response:
            await fake_provider.wait_for(held=1)
            await gate.stall()
            server.terminate()
            assert "shutting_down" in [line async for line in response.aiter_lines() if line][-1]

        async def has_ended() -> bool:
            return server.child.exit_code() is not None

        await eventually(has_ended, timeout_s=60)
        assert server.child.exit_code() == 0
        [interrupted], [left] = server.log_lines("call_interrupted"), server.log_lines("calls_left_to_reaper")
        waited = datetime.fromisoformat(str(left["at"])) - datetime.fromisoformat(str(interrupted["at"]))
        assert waited.total_seconds() < SETTLE_AT_EXIT_S  # which it takes where the database still answers
    assert await open_holds(database, caller) == 1  # at what was held, which the reaper will charge


async def test_a_gateway_that_starts_without_its_database_serves_once_it_is_there(
    stack: RunningStack, gate: TcpGate, caller: Caller, fake_provider: FakeProvider
) -> None:
    await gate.shut()
    async with gateway_behind(gate, stack, fake_provider, name="early") as server:
        await server.answers("/health/live", 200)
        await server.answers("/health/ready", 503)
        await gate.open()
        await server.ready()
        async with server.http(caller) as client:
            await served(client)


async def served(client: httpx.AsyncClient, headers: Mapping[str, str] | None = None) -> None:
    """A call was answered; asked again while the database is not back, or the machine too busy for its deadline."""

    async def is_answered() -> bool:
        answer = await client.post("/chat/completions", json=ASK, headers=headers)
        assert answer.status_code in (200, 503)
        return answer.status_code == 200

    await eventually(is_answered)


@asynccontextmanager
async def streaming(client: httpx.AsyncClient) -> AsyncIterator[httpx.Response]:
    """A stream that has begun; asked for again while the machine is too busy for the database's deadline."""
    while True:
        async with client.stream("POST", "/chat/completions", json=STREAM) as response:
            if response.status_code == 200:
                yield response
                return
            assert response.status_code == 503
