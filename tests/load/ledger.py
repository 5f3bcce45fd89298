"""Hold+settle pairs a second: one hot user, then users spread wide. `python -m tests.load.ledger --help`.

Starts a stack of its own, or measures the one given by --database-url (superuser, for the users) and --gateway-url.
One row of figures a case; the load generator shares the machine, so they are indicative.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from uuid import UUID, uuid4

import asyncpg
import uvloop

from core.postgres import close_pool, open_pool
from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import HoldRequest, Usage
from llm_gateway.limits.postgres import PostgresLedger
from tests.support.stack import running_stack

USAGE = Usage(counts=TokenCounts(input=200, output=100), cost_nano_usd=12_000, deployment="bench/one")


@dataclass(frozen=True)
class Result:
    """Pairs of hold and settle in one case; times in seconds."""

    pairs: int
    elapsed_s: float
    hold_s: list[float]
    settle_s: list[float]

    def line(self, name: str) -> str:
        return (
            f"{name:<24}{self.pairs / self.elapsed_s:>9.0f}/s"
            f"   hold p50 {_ms(self.hold_s, 0.5)} p99 {_ms(self.hold_s, 0.99)}"
            f"   settle p50 {_ms(self.settle_s, 0.5)} p99 {_ms(self.settle_s, 0.99)}"
        )


async def measure(gateway_url: str, user_ids: list[UUID], *, clients: int, seconds: float) -> Result:
    """`clients` callers that each hold and settle, one after the other, for so many seconds."""
    pool = await open_pool(gateway_url, name="ledger-load", min_size=clients, max_size=clients)
    ledger = PostgresLedger(pool, deadline_s=30)
    result = Result(0, 0.0, [], [])
    turns, run = count(), uuid4().hex[:8]
    begin = time.perf_counter()
    end = begin + seconds

    async def call_on() -> None:
        while time.perf_counter() < end:
            turn = next(turns)
            request_id = f"bench_{run}_{turn:012d}"
            request = HoldRequest(request_id, user_ids[turn % len(user_ids)], "bench/model", 1000, 50_000)
            started = time.perf_counter()
            await ledger.hold(request)
            held = time.perf_counter()
            await ledger.settle(request_id, USAGE)
            result.hold_s.append(held - started)
            result.settle_s.append(time.perf_counter() - held)

    await asyncio.gather(*(call_on() for _ in range(clients)))
    elapsed_s = time.perf_counter() - begin
    await close_pool(pool)
    return Result(len(result.hold_s), elapsed_s, result.hold_s, result.settle_s)


async def add_users(database_url: str, number: int) -> list[UUID]:
    """So many new users on a plan that is never in the way."""
    database = await asyncpg.connect(database_url)
    user_ids = [uuid4() for _ in range(number)]
    await database.execute(
        """
        insert into gateway.plans (
            name, requests_per_minute, tokens_per_minute, calls_in_flight, nano_usd_per_month
        ) values ('load', 1000000, 1000000000, 100000, 1000000000000000) on conflict do nothing
        """
    )
    await database.execute("insert into auth.users (id) select unnest($1::uuid[])", user_ids)
    await database.execute(
        "insert into gateway.limits (scope, subject_id, plan) select 'user', unnest($1::uuid[]), 'load'", user_ids
    )
    await database.close()
    return user_ids


async def run(database_url: str, gateway_url: str, options: argparse.Namespace) -> None:
    for name, number in (("one hot user", 1), (f"{options.users} users", options.users)):
        user_ids = await add_users(database_url, number)
        await measure(gateway_url, user_ids, clients=options.clients, seconds=0.5)  # warms caches and plans
        result = await measure(gateway_url, user_ids, clients=options.clients, seconds=options.seconds)
        print(result.line(f"{name}, {options.clients} clients"), flush=True)


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
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--database-url")
    parser.add_argument("--gateway-url")
    options = parser.parse_args()
    if bool(options.database_url) != bool(options.gateway_url):
        parser.error("--database-url and --gateway-url go together")
    with addresses(options) as (database_url, gateway_url):
        uvloop.run(run(database_url, gateway_url, options))


def _ms(times_s: list[float], share: float) -> str:
    return f"{sorted(times_s)[int(len(times_s) * share)] * 1000:6.1f} ms"


if __name__ == "__main__":
    main()
