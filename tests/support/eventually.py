"""Waiting for what happens by itself soon, where nothing can be awaited that says so."""

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
