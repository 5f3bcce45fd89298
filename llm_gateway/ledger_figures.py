"""What the ledger holds for everybody together, asked now and then, for the figures."""

from __future__ import annotations

from typing import Final

from core.errors import ButtressError
from core.postgres import ServicePool, fetch, within
from llm_gateway.metrics import LedgerFigures

_STANDING: Final = "select * from gateway.standing()"


async def read_ledger_figures(pool: ServicePool) -> LedgerFigures | None:
    """What it holds now; None when the database does not say."""
    try:
        [row] = await within(pool.deadline_s, fetch(pool, _STANDING))
    except (ButtressError, TimeoutError):
        return None
    return LedgerFigures(
        holds=row["holds"],
        held_tokens=row["held_tokens"],
        held_nano_usd=row["held_nano_usd"],
        oldest_hold_s=row["oldest_hold_ms"] / 1000,
        subjects_in_debt=row["subjects_in_debt"],
        debt_nano_usd=row["debt_nano_usd"],
    )
