"""What the gateway keeps in PostgreSQL beside its ledger, over connections of its own: none of it holds a call up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from core.postgres import ServicePool, service_pool
from core.settings import Settings
from llm_gateway.cache.postgres import PostgresCache
from llm_gateway.content.store import PostgresContents
from llm_gateway.ledger_figures import read_ledger_figures
from llm_gateway.metrics import Metrics

SWEEP_EVERY_S: Final = 15.0
_POOL_SIZE: Final = 3
# It reads every meter of the month, and each process asks.
_FIGURES_EVERY_S: Final = 60.0


class Beside:
    """The cache, the stored contents and the figures of the ledger."""

    def __init__(self, pool: ServicePool, metrics: Metrics) -> None:
        self.cache = PostgresCache(pool, metrics)
        self.contents = PostgresContents(pool)
        self._pool = pool
        self._metrics = metrics
        self._figures_due_s = 0.0

    async def sweep(self) -> None:
        """What the cache and the store keep no longer is gone. Raises: Unavailable."""
        await self.cache.sweep()
        await self.contents.sweep()

    async def sample(self) -> None:
        """The figures know what the ledger holds, at most a minute ago."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._figures_due_s:
            self._figures_due_s = now_s + _FIGURES_EVERY_S
            self._metrics.sample_ledger(await read_ledger_figures(self._pool))


@asynccontextmanager
async def open_beside(settings: Settings, metrics: Metrics) -> AsyncGenerator[Beside]:
    """Usable inside, also while the database is out of reach."""
    async with service_pool(settings, name="llm_gateway beside its ledger", max_size=_POOL_SIZE) as pool:
        yield Beside(pool, metrics)
