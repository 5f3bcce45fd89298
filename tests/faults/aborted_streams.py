"""`python -m tests.faults.aborted_streams`: thousands of clients that leave their stream, and the gateway's memory.

Each client asks for a stream, reads some of it (nothing, a few bytes, a few chunks) and closes the connection. The
gateway's resident memory is read after each thousand, once every call is settled. After a warm-up it must not grow: the
slope of a straight line through the readings is what is reported.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from statistics import linear_regression
from urllib.parse import urlsplit

import asyncpg
import orjson

from tests.load.processes import ProcessTree
from tests.support.callers import Caller, new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Match, Step
from tests.support.gateway_ledger import OUT_OF_REACH, set_limits
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.stack import RunningStack, running_stack

MODEL = "fake/chat"
MOST_KB_A_THOUSAND = 1.0
_AT_ONCE = 50
_BODY = orjson.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 200, "stream": True}
)


@dataclass(frozen=True, slots=True)
class Readings:
    """Resident kilobytes after each thousand aborted streams, the warm-up's left out; and what the ledger has."""

    rss_kb: tuple[float, ...]
    calls: int
    usage_rows: int
    free_rows: int

    @property
    def kb_a_thousand(self) -> float:
        """The slope; 0 where there are too few readings for one."""
        return linear_regression(range(len(self.rss_kb)), self.rss_kb).slope if len(self.rss_kb) > 1 else 0.0

    @property
    def problems(self) -> list[str]:
        """A sentence for everything that should not be; the slope is the caller's to judge."""
        found = []
        if self.usage_rows != self.calls:
            found.append(f"{self.calls} calls were made, and the ledger has {self.usage_rows}")
        if self.free_rows:
            found.append(f"{self.free_rows} calls whose provider worked were free")
        return found


async def abort_streams(
    stack: RunningStack,
    provider: FakeProvider,
    gateway: GatewayServer,
    *,
    thousands: int,
    warm_up: int,
    each: int = 1000,
) -> Readings:
    """`thousands` times `each` streams were begun and left, and all of them are settled."""
    database = await asyncpg.connect(stack.database_url)
    try:
        caller = await _caller(stack, database)
        provider.script(Step(match=Match(model="scripted"), times=0, output_tokens=150, delay_between_chunks_s=0.005))
        tree = ProcessTree(gateway.child.process.pid)
        readings = []
        for thousand in range(thousands):
            await _leave_streams(gateway, caller, each, random.Random(thousand))

            async def settled(expected: int = (thousand + 1) * each) -> bool:
                count = "select count(*) from gateway.usage where user_id = $1 and state <> 'voided'"
                return bool(await database.fetchval(count, caller.user_id) >= expected)

            await eventually(settled, timeout_s=60)
            readings.append(tree.rss_bytes() / 1024)
            print(f"  {(thousand + 1) * each:,} streams, {readings[-1]:,.0f} KB", file=sys.stderr, flush=True)
        rows = await database.fetchrow(
            "select count(*) as rows, count(*) filter (where state = 'settled' and cost_nano_usd = 0) as free"
            " from gateway.usage where user_id = $1 and state <> 'voided'",
            caller.user_id,
        )
        assert rows is not None
        return Readings(tuple(readings[warm_up:]), thousands * each, rows["rows"], rows["free"])
    finally:
        await database.close()


async def _caller(stack: RunningStack, database: asyncpg.Connection) -> Caller:
    caller = await new_caller(stack, database)
    await set_limits(database, caller, **OUT_OF_REACH)
    return caller


async def _leave_streams(gateway: GatewayServer, caller: Caller, count: int, chance: random.Random) -> None:
    """So many streams were begun (a refused one is asked for again) and left."""
    url = urlsplit(gateway.url)
    lines = [
        "POST /llm/v1/chat/completions HTTP/1.1",
        f"host: {url.netloc}",
        f"authorization: Bearer {caller.access_token}",
        "content-type: application/json",
        f"content-length: {len(_BODY)}",
    ]
    request = "\r\n".join([*lines, "", ""]).encode() + _BODY
    turn = asyncio.Semaphore(_AT_ONCE)

    async def begun(wanted_bytes: int) -> bool:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 503 " in head[:16]:  # more at once than the ledger's deadline allows on this machine
                return False
            assert b" 200 " in head[:16], head
            await reader.readexactly(wanted_bytes)
        finally:
            writer.transport.abort()
        return True

    async def one(wanted_bytes: int) -> None:
        async with turn:
            while not await begun(wanted_bytes):
                pass

    await asyncio.gather(*(one(chance.choice((0, 1, 300, 1000, 4000))) for _ in range(count)))


def main() -> int:
    """0 when every call is in the ledger and memory is flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.aborted_streams", description=__doc__)
    parser.add_argument("--thousands", type=int, default=24)
    parser.add_argument("--warm-up", type=int, default=6, help="thousands left out of the slope (default 6)")
    options = parser.parse_args()
    with ExitStack() as parts:
        stack = parts.enter_context(running_stack())
        provider = parts.enter_context(FakeProvider.start(keep=10))
        gateway = parts.enter_context(gateway_on(stack, provider))
        readings = asyncio.run(
            abort_streams(stack, provider, gateway, thousands=options.thousands, warm_up=options.warm_up)
        )
    slope, steps = readings.kb_a_thousand, _steps(readings.rss_kb)
    print(f"{readings.calls:,} aborted streams: {slope:+.2f} KB a thousand; {steps}")
    problems = readings.problems
    if readings.kb_a_thousand > MOST_KB_A_THOUSAND:
        problems.append(f"memory grows by {readings.kb_a_thousand:.2f} KB a thousand")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _steps(rss_kb: Sequence[float]) -> str:
    return "steps of " + ", ".join(f"{after - before:+.0f}" for before, after in pairwise(rss_kb)) + " KB"


if __name__ == "__main__":
    sys.exit(main())
