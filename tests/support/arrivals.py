"""When a client has so much of its stream, so that what happens next happens after that."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class Arrivals:
    """Waits for `count` pieces of output; whoever passed them on knows of at least as many."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.all_came = asyncio.Event()

    async def of(self, stream: AsyncIterable[T], is_output: Callable[[T], bool]) -> AsyncIterator[T]:
        """The stream as it is, counted."""
        async for one in stream:
            self._left -= is_output(one)
            if self._left == 0:
                self.all_came.set()
            yield one


async def all_came(streams: Iterable[Arrivals]) -> None:
    """Each of the streams has come as far as that."""
    async with asyncio.timeout(60):
        for stream in streams:
            await stream.all_came.wait()
