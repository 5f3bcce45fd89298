"""`python -m tests.faults.aborted_streams`: thousands of clients that leave their stream, and the gateway's memory.

Each client asks for a stream, reads some of it (nothing, a few bytes, a few chunks) and closes the connection. After
each thousand, once every call is settled, the worker says what it holds (tests/support/held_memory.py). After a warm-up
nothing of it may grow: judged are the slopes of straight lines through the readings. One object of 16 bytes that every
stream left behind would be 16 KB a thousand.
"""

import argparse
import asyncio
import random
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from math import sqrt
from statistics import linear_regression
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import orjson

from tests.support.callers import Caller, new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Match, Step
from tests.support.gateway_ledger import OUT_OF_REACH, set_limits
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.held_memory import Held
from tests.support.pools import AS_IN_SERVICE_S
from tests.support.stack import RunningStack, running_stack

MODEL = "fake/chat"
MOST_KB_A_THOUSAND = 1.0
_LEAST_THOUSANDS = 3
_AT_ONCE = 50
_BODY = orjson.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 200, "stream": True}
)
_KB_A_BLOCK = 0.1  # what Python's small objects take is some 100 bytes each on average
# What a call consists of: ours, and what carries it. Other types may grow because something is imported meanwhile.
_OF_A_CALL: Final = (
    "core.",
    "llm_gateway.",
    "_asyncio.",
    "asyncio.",
    "uvloop.",
    "asyncpg.",
    "httptools.",
    "_granian.",
    "granian.",
    "_contextvars.",
    "builtins.coroutine",
    "builtins.async_generator",
)


_UNTIL_FORGOTTEN: Final = ("llm_gateway.call.Call", "llm_gateway.limits.batching.Posting")


@dataclass(frozen=True, slots=True)
class Slope:
    """Of a straight line through readings: its rise a reading, and the standard error of that."""

    rise: float
    error: float

    @classmethod
    def of(cls, readings: list[float]) -> "Slope":
        """Needs three readings at least."""
        xs = range(len(readings))
        rise, start = linear_regression(xs, readings)
        squares = sum((y - start - rise * x) ** 2 for x, y in zip(xs, readings, strict=True))
        spread = sum((x - (len(readings) - 1) / 2) ** 2 for x in xs)
        return cls(rise, sqrt(squares / (len(readings) - 2) / spread))

    @property
    def least(self) -> float:
        """The rise is more than this, with 97.5 % certainty."""
        return self.rise - 2 * self.error


@dataclass(frozen=True, slots=True)
class Books:
    """What the ledger has of the calls that were made."""

    calls: int
    usage_rows: int
    free_rows: int

    @property
    def problems(self) -> list[str]:
        """A sentence for everything that should not be."""
        found = []
        if self.usage_rows != self.calls:
            found.append(f"{self.calls} calls were made, and the ledger has {self.usage_rows}")
        if self.free_rows:
            found.append(f"{self.free_rows} calls whose provider worked were free")
        return found


class Aborting:
    """One caller whose clients leave their streams."""

    def __init__(self, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection) -> None:
        self._gateway = gateway
        self._caller = caller
        self._database = database
        self._calls = 0

    @classmethod
    async def at(
        cls, stack: RunningStack, provider: FakeProvider, gateway: GatewayServer, database: asyncpg.Connection
    ) -> "Aborting":
        """A new caller whom no limit stops, and a provider that takes its time."""
        provider.script(Step(match=Match(model="scripted"), times=0, output_tokens=150, delay_between_chunks_s=0.005))
        return cls(gateway, await _caller(stack, database), database)

    async def leave(self, count: int) -> None:
        """So many streams more were begun and left, and all of them are settled."""
        await _leave_streams(self._gateway, self._caller, count, random.Random(self._calls))
        self._calls += count
        query = "select count(*) from gateway.usage where user_id = $1 and state <> 'voided'"

        async def settled() -> bool:
            return bool(await self._database.fetchval(query, self._caller.user_id) >= self._calls)

        await eventually(settled, timeout_s=60)

    async def held(self) -> Held:
        """What the worker holds when nothing happens."""

        async def idle() -> bool:
            held = await self._gateway.held()
            return not any(held.objects.get(name) for name in _UNTIL_FORGOTTEN)

        await eventually(idle)
        return await self._gateway.held()

    async def books(self) -> Books:
        """What the ledger has."""
        row = await self._database.fetchrow(
            "select count(*) as rows, count(*) filter (where state = 'settled' and cost_nano_usd = 0) as free"
            " from gateway.usage where user_id = $1 and state <> 'voided'",
            self._caller.user_id,
        )
        assert row is not None
        return Books(self._calls, row["rows"], row["free"])


def of_a_call(held: Held) -> dict[str, int]:
    """How many objects there are of each type that calls consist of."""
    return {name: count for name, count in held.objects.items() if name.startswith(_OF_A_CALL)}


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


async def _measure(
    stack: RunningStack, provider: FakeProvider, gateway: GatewayServer, *, thousands: int
) -> tuple[list[Held], Books]:
    database = await asyncpg.connect(stack.database_url)
    try:
        aborting = await Aborting.at(stack, provider, gateway, database)
        readings = []
        for thousand in range(1, thousands + 1):
            await aborting.leave(1000)
            held = await aborting.held()
            readings.append(held)
            print(
                f"  {thousand:,} thousand: {sum(held.objects.values()):,} objects, {held.blocks:,} blocks,"
                f" {held.malloc_bytes / 1024:,.0f} KB of malloc, {held.rss_bytes / 1024:,.0f} KB resident",
                file=sys.stderr,
                flush=True,
            )
        return readings, await aborting.books()
    finally:
        await database.close()


def main() -> int:
    """0 when every call is in the ledger and memory is flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.aborted_streams", description=__doc__)
    parser.add_argument("--thousands", type=int, default=24, help="that are measured, after the warm-up (default 24)")
    parser.add_argument("--warm-up", type=int, default=24, help="thousands that come before (default 24)")
    options = parser.parse_args()
    if options.thousands < _LEAST_THOUSANDS:
        parser.error(f"a slope needs {_LEAST_THOUSANDS} thousand")
    with ExitStack() as parts:
        stack = parts.enter_context(running_stack())
        provider = parts.enter_context(FakeProvider.start(keep=10))
        gateway = parts.enter_context(gateway_on(stack, provider, database_deadline_s=AS_IN_SERVICE_S))
        readings, books = asyncio.run(_measure(stack, provider, gateway, thousands=options.warm_up + options.thousands))
    problems = books.problems + _growth(readings[options.warm_up :])
    print(f"{books.calls:,} aborted streams, {books.usage_rows:,} usage rows")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _growth(readings: list[Held]) -> list[str]:
    """A sentence for each figure that grows by more than MOST_KB_A_THOUSAND beyond doubt; each slope is printed."""
    figures = {
        "KB in Python's blocks": [held.blocks * _KB_A_BLOCK for held in readings],
        "KB of malloc": [held.malloc_bytes / 1024 for held in readings],
        "KB resident": [held.rss_bytes / 1024 for held in readings],
    }
    found = []
    for name, values in figures.items():
        slope = Slope.of(values)
        print(f"{name}: {slope.rise:+.2f} (± {2 * slope.error:.2f}) a thousand streams")
        if slope.least > MOST_KB_A_THOUSAND:
            found.append(f"{name} grow by {slope.rise:.2f} a thousand streams")
    return found


if __name__ == "__main__":
    sys.exit(main())
