"""What is killed and started again: gateways, each with a gate of its own before PostgreSQL, and PostgreSQL.

Two gateways serve. Others stand by, so that nobody waits while one that was killed is started again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import httpx

from stack import postgres
from stack.errors import PartFailed
from stack.processes import group_members, log_tail
from tests.faults.kills.plan import GATEWAYS, PEOPLE
from tests.faults.kills.postgres_gate import PostgresGate, postgres_gate
from tests.support.api_keys import new_key
from tests.support.callers import join, new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_ledger import OUT_OF_REACH, set_limits
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.pools import AS_IN_SERVICE_S
from tests.support.stack import RunningStack

LEASE_S = 5.0
GRACE_S = 0.5


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who calls with a token of their own, or with a key of their workspace."""

    user_id: UUID
    token: str
    key: str


@dataclass(slots=True)
class Gateway:
    """A gateway's place; whatever process is in it, its gate stays the same."""

    name: str
    gate: PostgresGate
    server: GatewayServer | None = None
    life: ExitStack = field(default_factory=ExitStack)

    @property
    def running(self) -> GatewayServer:
        if self.server is None:
            raise AssertionError(f"{self.name} has not been started")
        return self.server

    def kill(self) -> None:
        """Its processes are gone at once: the supervisor and the worker."""
        os.killpg(self.running.child.process.pid, signal.SIGKILL)

    async def gone(self) -> int:
        """The exit status of its supervisor, once none of its processes is left."""
        child = self.running.child

        async def ended() -> bool:
            return child.exit_code() is not None and not group_members(child.process.pid)

        await eventually(ended, timeout_s=60)
        return int(child.process.returncode)


@dataclass(slots=True)
class World:
    """Everything a round acts on."""

    stack: RunningStack
    provider: FakeProvider
    gateways: list[Gateway]
    people: list[Person]
    http: httpx.AsyncClient
    faults: list[str] = field(default_factory=list)
    standing_by: asyncio.Queue[Gateway] = field(default_factory=asyncio.Queue)
    starting: set[asyncio.Task[None]] = field(default_factory=set)
    overdue_s: float = 0.0  # the most that any hold was ever seen to outlive its lease

    async def start(self, gateway: Gateway) -> None:
        """A new process is in the place, and ready."""
        gateway.life.close()
        gateway.life = ExitStack()
        gateway.server = gateway.life.enter_context(
            gateway_on(
                self.stack,
                self.provider,
                name=gateway.name,
                models_toml=NATIVE_MODELS_TOML,
                database_deadline_s=AS_IN_SERVICE_S,
                wait=False,
                extra_environment={
                    "BUTTRESS_GATEWAY_DATABASE_URL": gateway.gate.url,
                    "BUTTRESS_GATEWAY_LEASE_S": str(LEASE_S),
                    "BUTTRESS_GATEWAY_GRACE_S": str(GRACE_S),
                },
            )
        )
        await self.ready(gateway)

    async def ready(self, gateway: Gateway) -> None:
        """The gateway serves."""

        async def says_so() -> bool:
            gateway.running.child.require_running()
            with suppress(httpx.TransportError):
                return (await self.http.get(f"{gateway.running.url}/health/ready", timeout=5)).status_code == 200
            return False

        await eventually(says_so, timeout_s=60)

    async def replace(self, place: int, *, status: int) -> None:
        """Another gateway serves in this place; the one that did ends with `status`, and will then stand by itself."""
        left = self.gateways[place]
        task = asyncio.create_task(self._start_again(left, status))
        self.starting.add(task)
        task.add_done_callback(self.starting.discard)
        self.gateways[place] = await self.standing_by.get()

    async def _start_again(self, gateway: Gateway, status: int) -> None:
        if (ended_with := await gateway.gone()) != status:
            self.faults.append(f"{gateway.name} ended with {ended_with}, not {status}")
        try:
            await self.start(gateway)
        except (AssertionError, PartFailed) as error:
            await _tell_what_it_does(gateway)
            self.faults.append(f"{gateway.name} did not start: {error}{log_tail(gateway.running.log_file, lines=120)}")
        self.standing_by.put_nowait(gateway)

    async def terminate_backends(self) -> None:
        """Every session of a gateway was ended by the database."""
        async with self.database() as database:
            await database.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'gateway_service'"
            )

    async def kill_postgres(self) -> None:
        """The postmaster was killed with SIGKILL, and PostgreSQL has recovered from it."""
        child = self.stack.family.children["postgres"]
        os.kill(child.process.pid, signal.SIGKILL)

        async def gone() -> bool:
            return child.exit_code() is not None and not group_members(child.process.pid)

        await eventually(gone, timeout_s=60)
        child = self.stack.start(postgres.part(self.stack.config))
        await asyncio.to_thread(postgres.wait_until_ready, self.stack.config, child)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection as the superuser, past the gates."""
        connection = await asyncpg.connect(self.stack.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def watch_leases(self) -> None:
        """Until cancelled it is noted how long holds outlive their leases."""
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with self.database() as database:
                    while True:
                        overdue_s = await database.fetchval(
                            "select extract(epoch from max(clock_timestamp() - lease_expires_at))::float8"
                            " from gateway.holds"
                        )
                        self.overdue_s = max(self.overdue_s, overdue_s or 0.0)
                        await asyncio.sleep(0.25)
            await asyncio.sleep(0.1)


async def _tell_what_it_does(gateway: Gateway) -> None:
    """The log of a gateway that hangs ends with what each of its threads does (tests/support/at_start)."""
    for pid in group_members(gateway.running.child.process.pid):
        os.kill(pid, signal.SIGUSR1)
    await asyncio.sleep(1.0)  # nothing tells when they have written


@asynccontextmanager
async def world_on(stack: RunningStack, provider: FakeProvider, *, standing_by: int) -> AsyncIterator[World]:
    """Two gateways that serve, so many more that stand by, and people whom no limit stops."""
    async with AsyncExitStack() as parts:
        gates = [
            await parts.enter_async_context(postgres_gate(stack.gateway_database_url))
            for _ in range(GATEWAYS + standing_by)
        ]
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        http = await parts.enter_async_context(httpx.AsyncClient(timeout=60, limits=limits))
        gateways = [Gateway(f"kills-{number}", gate) for number, gate in enumerate(gates)]
        world = World(stack, provider, gateways[:GATEWAYS], await _people(stack), http)
        watching = asyncio.create_task(world.watch_leases())
        try:
            await asyncio.gather(*(world.start(gateway) for gateway in gateways))
            for gateway in gateways[GATEWAYS:]:
                world.standing_by.put_nowait(gateway)
            yield world
            await asyncio.gather(*world.starting)
        finally:
            watching.cancel()
            for gateway in gateways:
                if gateway.server is not None and gateway.server.child.exit_code() is None:
                    gateway.kill()
                    await gateway.gone()
                gateway.life.close()


async def _people(stack: RunningStack) -> list[Person]:
    database = await asyncpg.connect(stack.database_url)
    try:
        callers = [await new_caller(stack, database) for _ in range(PEOPLE)]
        workspace_id = await database.fetchval(
            "insert into api.workspaces (name, created_by) values ('Survivors', $1) returning id", callers[0].user_id
        )
        people = []
        for caller in callers:
            await join(database, workspace_id, caller, "owner" if caller is callers[0] else "member")
            key = await new_key(stack, database, caller, workspace_id=workspace_id)
            people.append(Person(caller.user_id, caller.access_token, key.secret))
            await set_limits(database, caller, **OUT_OF_REACH)
        return people
    finally:
        await database.close()
