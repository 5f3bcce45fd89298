"""Long work on one core, done in steps: each takes a moment, and between two of them somebody else may have a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from time import perf_counter
from typing import Final, TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]

# The longest that everybody else waits for a turn, if no single step takes longer.
TURN_S: Final = 0.001


def at_once(steps: Steps[T]) -> T:
    """What the steps come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


async def joined_in_turns(steps: Iterator[bytes]) -> bytes:
    """All that the steps give; others get their turn whenever TURN_S was worked."""
    given = []
    ends_s = perf_counter() + TURN_S
    for piece in steps:
        given.append(piece)
        if perf_counter() >= ends_s:
            await asyncio.sleep(0)
            ends_s = perf_counter() + TURN_S
    return b"".join(given)


class Turns:
    """Steps of several at a time: in each turn of the event loop one of them works for TURN_S."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # it is passed on in the order of asking

    async def take(self, steps: Steps[T]) -> T:
        """What the steps come to. Cancelled, no further step is made."""
        while True:
            async with self._turn:
                ends_s = perf_counter() + TURN_S
                try:
                    while perf_counter() < ends_s:
                        next(steps)
                except StopIteration as end:
                    result: T = end.value
                    return result
            await asyncio.sleep(0)
