"""Waiting here instead of at a row lock in the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Queue:
    turns: asyncio.Semaphore
    members: int = 0


class Turns:
    """At most `at_once` tasks of this process are inside for one key; the others wait in the order they came."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._queues: dict[Hashable, _Queue] = {}

    def __len__(self) -> int:
        """How many keys somebody is inside for, or waits for."""
        return len(self._queues)

    @asynccontextmanager
    async def of(self, key: Hashable) -> AsyncIterator[None]:
        """Inside: it is this task's turn."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(asyncio.Semaphore(self._at_once))
        queue.members += 1
        try:
            async with queue.turns:
                yield
        finally:
            queue.members -= 1
            if queue.members == 0:
                del self._queues[key]
