"""Pools as the gateway opens them, and the patience with a busy machine that only production must not have."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.postgres import ServicePool, close_pool, open_pool
from core.settings import Settings

DEADLINE_VARIABLE = "BUTTRESS_DATABASE_DEADLINE_S"
PATIENCE_S = 20.0  # so that a busy machine is not taken for an outage
AS_IN_SERVICE_S: float = Settings.model_fields["database_deadline_s"].default


@asynccontextmanager
async def pool_on(
    dsn: str,
    *,
    name: str = "buttress-tests",
    deadline_s: float = PATIENCE_S,
    min_size: int = 1,
    max_size: int = 10,
    transaction_pooler: bool | None = None,
) -> AsyncIterator[ServicePool]:
    """Open inside the block."""
    pool = await open_pool(
        dsn,
        name=name,
        deadline_s=deadline_s,
        min_size=min_size,
        max_size=max_size,
        transaction_pooler=transaction_pooler,
    )
    try:
        yield pool
    finally:
        await close_pool(pool)
