"""What the API answers while something it stands on is gone, and that it comes back by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import httpx
import pytest
from anyio import to_thread

from tests.support.api_client import api_as, refusal
from tests.support.api_server import ApiServer, api_server_on
from tests.support.callers import new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider
from tests.support.pools import PATIENCE_S, SUPABASE_AS_IN_SERVICE_S
from tests.support.stack import RunningStack, free_ports
from tests.support.tcp_gate import TcpGate, tcp_gate

# Supabase alone, whose answers are waited for 8 s, would make an answer of ours take longer.
A_SECOND_AND_A_BUSY_MACHINE_S = 6.0


@dataclass(frozen=True)
class GatedStack(RunningStack):
    """The stack, with a gate between Supabase and whoever uses `environment()`."""

    gate_port: int = 0

    def environment(self, *, database_deadline_s: float = PATIENCE_S) -> dict[str, str]:
        return {
            **super().environment(database_deadline_s=database_deadline_s),
            "BUTTRESS_SUPABASE_URL": f"http://127.0.0.1:{self.gate_port}",
            "BUTTRESS_JWT_ISSUER": f"{self.supabase_url}/auth/v1",
        }


@pytest.fixture
async def gate(stack: RunningStack) -> AsyncIterator[TcpGate]:
    async with tcp_gate(stack.config.supabase_port, free_ports(1)[0]) as gate:
        yield gate


@pytest.fixture
def supabase_deadline_s() -> float:
    """Of the server. Patience does not make it wait for a gate that is shut."""
    return PATIENCE_S


@pytest.fixture
async def server(
    stack: RunningStack, gate: TcpGate, fake_provider: FakeProvider, supabase_deadline_s: float
) -> AsyncIterator[ApiServer]:
    gated = GatedStack(stack.config, stack.secrets, stack.family, gate_port=gate.port)
    running = api_server_on(gated, fake_provider.url, name="api-behind-gate", supabase_deadline_s=supabase_deadline_s)
    # in a thread, because it waits for an answer that comes through the gate, which lives in this loop
    server = await to_thread.run_sync(running.__enter__)
    try:
        yield server
    finally:
        await to_thread.run_sync(running.__exit__, None, None, None)


@pytest.fixture
async def api(server: ApiServer, stack: RunningStack, database: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(server, await new_caller(stack, database)) as client:
        yield client


async def asked(api: httpx.AsyncClient, method: str, path: str, json: object = None) -> tuple[httpx.Response, float]:
    """The answer and how many seconds it took."""
    started_s = time.monotonic()
    response = await api.request(method, path, json=json)
    return response, time.monotonic() - started_s


async def test_while_supabase_is_down_every_door_says_so_at_once_and_afterwards_opens_again(
    api: httpx.AsyncClient, gate: TcpGate
) -> None:
    assert (await api.get("/v1/me")).status_code == 200
    await gate.shut()
    credentials = {"email": "x@example.com", "password": "Wrong-horse-9"}
    for method, path, body in (
        ("GET", "/v1/me", None),
        ("POST", "/v1/workspaces", {"name": "x"}),
        ("GET", "/v1/usage", None),
        ("GET", "/v1/auth/session", None),
        ("POST", "/v1/auth/sign-in", credentials),
        ("POST", "/v1/auth/sign-up", credentials),
    ):
        response, took_s = await asked(api, method, path, body)
        assert refusal(response) == (503, "unavailable"), path
        assert int(response.headers["retry-after"]) >= 1
        assert took_s < A_SECOND_AND_A_BUSY_MACHINE_S
    ready, took_s = await asked(api, "GET", "/health/ready")
    assert refusal(ready) == (503, "not_ready")
    assert ready.json()["error"]["details"] == {"parts": {"auth": "down", "database": "down", "gateway": "ok"}}
    assert took_s < A_SECOND_AND_A_BUSY_MACHINE_S
    assert (await api.get("/health/live")).status_code == 200

    await gate.open()

    async def serves_again() -> bool:
        return (await api.get("/v1/me")).status_code == 200 and (await api.get("/health/ready")).status_code == 200

    await eventually(serves_again)


@pytest.mark.parametrize("supabase_deadline_s", [SUPABASE_AS_IN_SERVICE_S])
async def test_readiness_does_not_wait_for_a_supabase_that_hangs(api: httpx.AsyncClient, gate: TcpGate) -> None:
    await gate.stall()
    answers = await asyncio.gather(*(asked(api, "GET", "/health/ready") for _ in range(5)))
    for response, took_s in answers:
        assert refusal(response) == (503, "not_ready")
        assert took_s < A_SECOND_AND_A_BUSY_MACHINE_S
    assert (await asked(api, "GET", "/health/live"))[1] < A_SECOND_AND_A_BUSY_MACHINE_S
