"""What the ledger holds for everybody together, asked now and then, for the figures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg

from core.errors import ButtressError
from core.postgres import database_errors, lend
from llm_gateway.metrics import LedgerStanding

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

WITHIN_S: Final = 0.9

_STANDING: Final = "select * from gateway.standing()"


async def read_standing(pool: Pool) -> LedgerStanding | None:
    """What it holds now; None when the database does not say."""
    try:
        async with asyncio.timeout(WITHIN_S):
            with database_errors():
                async with lend(pool) as connection:
                    row = await connection.fetchrow(_STANDING)
    except (ButtressError, TimeoutError):
        return None
    if row is None:
        raise AssertionError("gateway.standing answers one row")
    return LedgerStanding(
        holds=row["holds"],
        held_tokens=row["held_tokens"],
        held_nano_usd=row["held_nano_usd"],
        oldest_hold_s=row["oldest_hold_ms"] / 1000,
        subjects_in_debt=row["subjects_in_debt"],
        debt_nano_usd=row["debt_nano_usd"],
    )
