"""`python -m tests.faults.rolling --restarts 20`: gateways are replaced one after the other, and nobody notices.

Two gateway processes behind a balancer that asks for their readiness every 100 ms and never sends a request twice.
Official clients without retries stream and ask for whole answers all the time, while each process in turn gets SIGTERM,
ends, is started again and is ready. First with a grace period that is longer than the streams: not a request fails, and
every stream is whole. Then with streams that outlast it: they end with an error event, and still nothing else fails.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anthropic
import asyncpg
import httpx
import httpx2
import openai

from tests.support.balancer import Balancer, balancer
from tests.support.callers import Caller, new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Match, Step
from tests.support.gateway_ledger import OUT_OF_REACH, set_limits
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.pools import AS_IN_SERVICE_S
from tests.support.stack import RunningStack, running_stack

_PLACES = ("rolling-a", "rolling-b")
_WORDS = "Go on."
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much happens. A stream has `chunks`, one each `chunk_every_s`."""

    restarts: int = 20
    streams: int = 8
    wholes: int = 4
    chunks: int = 20
    chunk_every_s: float = 0.05
    lame_duck_s: float = 1.0
    grace_s: float = 10.0
    database_deadline_s: float = AS_IN_SERVICE_S

    @property
    def longer_than_the_grace(self) -> bool:
        """Some streams cannot end by themselves."""
        return self.chunks * self.chunk_every_s > self.grace_s + self.lame_duck_s


@dataclass(slots=True)
class Seen:
    """What the clients saw: how often each outcome, and the words of the first failures."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # of the processes that were told to stop
    usage: dict[str, int] = field(default_factory=dict)  # rows of the ledger by state
    worked: int = 0  # calls that reached the provider

    def problems(self, extent: Extent) -> list[str]:
        """A sentence for everything that should not be."""
        found = [f"a request failed: {one}" for one in self.failures[:_EXAMPLES]]
        if self.failures:
            found.append(f"{len(self.failures)} requests failed")
        if self.outcomes["error event"] and not extent.longer_than_the_grace:
            found.append(f"{self.outcomes['error event']} streams ended with an error event")
        if any(self.statuses):
            found.append(f"stops ended with {self.statuses}")
        if self.usage.keys() - {"settled"} or sum(self.usage.values()) != self.worked:
            found.append(f"the ledger has {self.usage}, the provider worked on {self.worked} calls")
        return found


async def roll(stack: RunningStack, provider: FakeProvider, extent: Extent) -> Seen:
    """Each process was replaced in turn, as often as asked, under load all the time."""
    seen = Seen()
    provider.reset()
    provider.script(
        Step(match=Match(path="/v1/chat/completions", model="scripted", user="whole"), times=0, output_tokens=8),
        Step(times=0, output_tokens=extent.chunks, delay_between_chunks_s=extent.chunk_every_s),
    )
    caller = await _caller(stack)
    async with AsyncExitStack() as parts:
        lives = {name: _Life(stack, provider, name, extent) for name in _PLACES}
        for life in lives.values():
            parts.callback(life.end)
        await asyncio.gather(*(life.begin() for life in lives.values()))
        front = await parts.enter_async_context(balancer({name: life.port for name, life in lives.items()}))
        await asyncio.gather(*(front.serves(name) for name in lives))
        async with _load(front, caller, extent, seen):
            for number in range(extent.restarts):
                name = _PLACES[number % len(_PLACES)]
                seen.statuses.append(await lives[name].stop())
                await lives[name].begin()
                front.place(name, lives[name].port)
                await front.serves(name)
        seen.statuses += await asyncio.gather(*(life.stop() for life in lives.values()))
    await _read_books(stack, provider, caller, seen)
    provider.reset()
    return seen


class _Life:
    """One place and the process in it."""

    def __init__(self, stack: RunningStack, provider: FakeProvider, name: str, extent: Extent) -> None:
        self._stack, self._provider, self._name = stack, provider, name
        self._parts = ExitStack()
        self._server: GatewayServer | None = None
        self._database_deadline_s = extent.database_deadline_s
        self._environment = {
            "BUTTRESS_GATEWAY_LAME_DUCK_S": str(extent.lame_duck_s),
            "BUTTRESS_GATEWAY_GRACE_S": str(extent.grace_s),
        }

    @property
    def server(self) -> GatewayServer:
        if self._server is None:
            raise AssertionError(f"{self._name} was not started")
        return self._server

    @property
    def port(self) -> int:
        return urlsplit(self.server.url).port or 0

    async def begin(self) -> None:
        """A new process answers."""
        self.end()
        gateway = gateway_on(
            self._stack,
            self._provider,
            name=self._name,
            database_deadline_s=self._database_deadline_s,
            extra_environment=self._environment,
            wait=False,
        )
        self._server = self._parts.enter_context(gateway)
        await self._server.answers("/health/live", 200)

    async def stop(self) -> int:
        """The process was told to stop, and has ended with this status."""
        child = self.server.child
        self.server.terminate()

        async def has_ended() -> bool:
            return child.exit_code() is not None

        await eventually(has_ended, timeout_s=60)
        return int(child.process.returncode)

    def end(self) -> None:
        """Nothing of the process is left."""
        self._parts.close()
        self._parts = ExitStack()


@asynccontextmanager
async def _load(front: Balancer, caller: Caller, extent: Extent, seen: Seen) -> AsyncIterator[None]:
    """Clients call without a pause inside the block; those that have begun end after it."""
    over = asyncio.Event()
    # each request has a connection of its own, and so a place that was ready a moment ago
    async with (
        httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), timeout=60) as http,
        httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0), timeout=60) as http2,
        openai.AsyncOpenAI(
            base_url=f"{front.url}/llm/v1", api_key=caller.access_token, max_retries=0, http_client=http
        ) as chat,
        anthropic.AsyncAnthropic(
            base_url=f"{front.url}/llm", api_key=caller.access_token, max_retries=0, http_client=http2
        ) as claude,
    ):
        works: list[Callable[[], Coroutine[None, None, str]]] = [lambda: _whole(chat)] * extent.wholes
        works += [lambda: _openai_stream(chat, extent)] * (extent.streams - extent.streams // 2)
        works += [lambda: _anthropic_stream(claude, extent)] * (extent.streams // 2)
        # What a client loads at its first call holds its process up for a second, and with it the balancer's checks.
        await asyncio.gather(*(work() for work in works))
        clients = [asyncio.create_task(_again_and_again(work, over, seen)) for work in works]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*clients)


async def _again_and_again(work: Callable[[], Coroutine[None, None, str]], over: asyncio.Event, seen: Seen) -> None:
    while not over.is_set():
        try:
            seen.outcomes[await work()] += 1
        except (openai.OpenAIError, anthropic.AnthropicError, httpx.HTTPError, httpx2.HTTPError) as error:
            seen.failures.append(f"{type(error).__name__}: {error}; caused by {error.__cause__!r}")


async def _whole(client: openai.AsyncOpenAI) -> str:
    await client.chat.completions.create(
        model="fake/chat", messages=[{"role": "user", "content": _WORDS}], max_tokens=200, user="whole"
    )
    return "whole answer"


async def _openai_stream(client: openai.AsyncOpenAI, extent: Extent) -> str:
    said = 0
    stream = await client.chat.completions.create(
        model="fake/chat", messages=[{"role": "user", "content": _WORDS}], max_tokens=200, stream=True
    )
    try:
        async for chunk in stream:
            said += sum(bool(choice.delta.content) for choice in chunk.choices)
    except openai.APIError as error:
        if error.code != "shutting_down":
            raise
        return "error event"
    return "whole stream" if said == extent.chunks else "short stream"


async def _anthropic_stream(client: anthropic.AsyncAnthropic, extent: Extent) -> str:
    said, stopped = 0, False
    stream = await client.messages.create(
        model="fake/claude", messages=[{"role": "user", "content": _WORDS}], max_tokens=200, stream=True
    )
    try:
        async for event in stream:
            said += event.type == "content_block_delta"
            stopped = stopped or event.type == "message_stop"
    except anthropic.APIStatusError as error:
        if error.response.status_code != 200:  # within a stream that had begun well
            raise
        return "error event"
    return "whole stream" if stopped and said == extent.chunks else "short stream"


async def _caller(stack: RunningStack) -> Caller:
    database = await asyncpg.connect(stack.database_url)
    try:
        caller = await new_caller(stack, database)
        await set_limits(database, caller, **OUT_OF_REACH)
        return caller
    finally:
        await database.close()


async def _read_books(stack: RunningStack, provider: FakeProvider, caller: Caller, seen: Seen) -> None:
    counts = provider.bill().counts
    await provider.wait_for(closed=counts.requests)
    seen.worked = counts.requests
    database = await asyncpg.connect(stack.database_url)
    try:
        query = "select state, count(*) from gateway.usage where user_id = $1 group by state"
        seen.usage = {row["state"]: row["count"] for row in await database.fetch(query, caller.user_id)}
    finally:
        await database.close()


def main() -> int:
    """0 when nobody noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rolling", description=__doc__)
    parser.add_argument("--restarts", type=int, default=20, help="of each of the two runs (default 20)")
    options = parser.parse_args()
    extents = {
        "streams of a second, 10 s of grace": Extent(restarts=options.restarts),
        "streams of 8 s, 2 s of grace": Extent(restarts=options.restarts, chunks=160, grace_s=2.0),
    }
    problems = []
    with ExitStack() as parts:
        stack = parts.enter_context(running_stack())
        provider = parts.enter_context(FakeProvider.start())
        for name, extent in extents.items():
            seen = asyncio.run(roll(stack, provider, extent))
            print(
                f"{name}: {extent.restarts} restarts, {dict(seen.outcomes)}, {len(seen.failures)} failed; "
                f"usage rows {seen.usage}, the provider worked on {seen.worked}",
                flush=True,
            )
            problems += [f"{name}: {problem}" for problem in seen.problems(extent)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
