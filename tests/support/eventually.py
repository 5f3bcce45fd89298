"""Waiting for what happens by itself soon, where nothing can be awaited that says so, and measuring how soon."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(is_true: Callable[[], Awaitable[bool]], *, timeout_s: float = 30.0) -> None:
    """The condition held. Raises: AssertionError with its name where it did not within that time."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await is_true():  # noqa: ASYNC110  (a condition elsewhere, that no event tells of)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{is_true.__name__} did not become true within {timeout_s:.0f} s") from None


async def fastest_of(measured_s: Callable[[], Awaitable[float]], *, enough_s: float, tries: int = 5) -> float:
    """The shortest of so many measurements, or the first that is short enough.

    A busy machine spoils some of them; what is slow by itself spoils all.
    """
    shortest_s = await measured_s()
    for _ in range(tries - 1):
        if shortest_s < enough_s:
            break
        shortest_s = min(shortest_s, await measured_s())
    return shortest_s
