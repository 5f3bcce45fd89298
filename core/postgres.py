"""The service's own door into PostgreSQL: a pool of asyncpg connections that fails fast and in our own words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from core.errors import ButtressError


async def open_pool(
    dsn: str,
    *,
    name: str,
    min_size: int = 1,
    max_size: int = 10,
    transaction_pooler: bool = False,
) -> asyncpg.Pool[asyncpg.Record]:
    """An open pool. Raises: Unavailable when PostgreSQL cannot be reached within a second."""
    raise NotImplementedError


@asynccontextmanager
async def database_errors() -> AsyncIterator[None]:
    """Whatever asyncpg raises inside leaves as one of our errors, the original as its cause."""
    yield


def error_from_postgres(error: BaseException) -> ButtressError:
    """Our error for what asyncpg, the network or a timeout raised."""
    raise NotImplementedError
