"""Waiting for one thing or another."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def happens_within(event: asyncio.Event, delay_s: float) -> bool:
    """Whether the event has happened, at once if it has, else after `delay_s` at the latest."""
    with suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await event.wait()
    return event.is_set()
