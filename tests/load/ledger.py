"""Hold+settle pairs a second as calls meet at the same meters. `python -m tests.load.ledger --help`.

Starts a stack of its own, or measures the one given by --database-url (superuser, for the users) and --gateway-url.
A row of figures a case: closed loops in this process, through one PostgresLedger on ten connections, as a gateway has.
The load shares the machine with the database, so rates are indicative; processor time a pair hardly depends on that.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID, uuid4

import asyncpg
import psutil
import uvloop

from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import HoldRequest, Scope, Usage
from llm_gateway.limits.postgres import PostgresLedger
from tests.load.processes import ProcessTree
from tests.support.pools import pool_on
from tests.support.stack import running_stack

USAGE = Usage(counts=TokenCounts(input=200, output=100), cost_nano_usd=12_000, deployment="bench/one", endpoint="chat")
CONNECTIONS = 10  # as the gateway's pool has


@dataclass(frozen=True)
class Callers:
    """Who calls, one after the other: users, each with a key and for a workspace where there are some."""

    name: str
    users: list[UUID]
    keys: list[UUID] = field(default_factory=list)
    workspaces: list[UUID] = field(default_factory=list)

    def request(self, turn: int, request_id: str) -> HoldRequest:
        return HoldRequest(
            request_id,
            self.users[turn % len(self.users)],
            "bench/model",
            tokens=1000,
            cost_nano_usd=50_000,
            key_id=self.keys[turn % len(self.keys)] if self.keys else None,
            workspace_id=self.workspaces[turn % len(self.workspaces)] if self.workspaces else None,
        )


@dataclass
class Result:
    """Pairs of hold and settle in one case; times in seconds."""

    elapsed_s: float = 0.0
    database_cpu_s: float = 0.0
    own_cpu_s: float = 0.0
    hold_s: list[float] = field(default_factory=list)
    settle_s: list[float] = field(default_factory=list)

    def line(self, name: str, clients: int) -> str:
        pairs = len(self.hold_s)
        return (
            f"| {name} | {clients} | {pairs / self.elapsed_s:,.0f} | {_ms(self.hold_s, 0.5)} | {_ms(self.hold_s, 0.99)}"
            f" | {_ms(self.settle_s, 0.5)} | {_ms(self.settle_s, 0.99)}"
            f" | {self.database_cpu_s / pairs * 1e6:.0f} | {self.own_cpu_s / pairs * 1e6:.0f} |"
        )


HEAD = (
    "| calls meet at | clients | pairs/s | hold p50 ms | p99 | settle p50 ms | p99"
    " | PostgreSQL CPU µs a pair | client |\n|---|---|---|---|---|---|---|---|---|"
)


async def measure(gateway_url: str, callers: Callers, server: ProcessTree, *, clients: int, seconds: float) -> Result:
    """`clients` callers that each hold and settle, one after the other, for so many seconds."""
    result, turns, run = Result(), count(), uuid4().hex[:8]

    async def call_on(ledger: PostgresLedger, end: float) -> None:
        while time.perf_counter() < end:
            turn = next(turns)
            request = callers.request(turn, f"bench_{run}_{turn:012d}")
            started = time.perf_counter()
            await ledger.hold(request)
            held = time.perf_counter()
            await ledger.settle(request.request_id, USAGE)
            result.hold_s.append(held - started)
            result.settle_s.append(time.perf_counter() - held)

    async with pool_on(gateway_url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        ledger = PostgresLedger(pool)
        database_cpu_s, own_cpu_s, begin = server.cpu_s(), _own_cpu_s(), time.perf_counter()
        await asyncio.gather(*(call_on(ledger, begin + seconds) for _ in range(clients)))
        result.elapsed_s = time.perf_counter() - begin
        result.database_cpu_s, result.own_cpu_s = server.cpu_s() - database_cpu_s, _own_cpu_s() - own_cpu_s
    return result


async def add_callers(database: asyncpg.Connection, number: int) -> list[Callers]:
    """The cases: so many users spread over whatever meters there are, all with every limit, none of them in the way."""
    users, keys, workspaces = ([uuid4() for _ in range(number)] for _ in range(3))
    await database.execute(
        """
        insert into gateway.plans (
            name, requests_per_minute, tokens_per_minute, calls_in_flight, tokens_per_day, nano_usd_per_day,
            nano_usd_per_month
        )
        values ('load', 1000000, 1000000000, 100000, 1000000000000, 1000000000000000, 1000000000000000)
        on conflict do nothing
        """
    )
    await database.execute("insert into auth.users (id) select unnest($1::uuid[])", users)
    subjects: list[tuple[Scope, list[UUID]]] = [("user", users), ("key", keys), ("workspace", workspaces)]
    for scope, ids in subjects:
        await database.execute(
            "insert into gateway.limits (scope, subject_id, plan) select $1, unnest($2::uuid[]), 'load'", scope, ids
        )
    return [
        Callers("one user", users[:1]),
        Callers(f"one workspace, {number} users", users, workspaces=workspaces[:1]),
        Callers(f"nowhere, {number} users", users),
        Callers(f"nowhere, {number} users, keys and workspaces", users, keys, workspaces),
    ]


async def run(database_url: str, gateway_url: str, options: argparse.Namespace) -> None:
    database = await asyncpg.connect(database_url)
    backend = psutil.Process(await database.fetchval("select pg_backend_pid()"))
    server = ProcessTree(backend.ppid())
    print(HEAD, flush=True)
    for callers in await add_callers(database, options.users):
        # makes meters, and warms caches and plans
        await measure(gateway_url, callers, server, clients=32, seconds=1.0)
        for clients in options.clients:
            result = await measure(gateway_url, callers, server, clients=clients, seconds=options.seconds)
            print(result.line(callers.name, clients), flush=True)
    await database.close()


@contextmanager
def addresses(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The superuser's and the gateway's database URL."""
    if options.database_url:
        yield options.database_url, options.gateway_url
        return
    with running_stack() as stack:
        yield stack.database_url, stack.gateway_database_url


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.load.ledger", description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 20, 32, 128])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each case")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--database-url")
    parser.add_argument("--gateway-url")
    options = parser.parse_args()
    if bool(options.database_url) != bool(options.gateway_url):
        parser.error("--database-url and --gateway-url go together")
    with addresses(options) as (database_url, gateway_url):
        uvloop.run(run(database_url, gateway_url, options))


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _ms(times_s: list[float], share: float) -> str:
    return f"{sorted(times_s)[int(len(times_s) * share)] * 1000:.1f}"


if __name__ == "__main__":
    main()
