"""What limits look like from outside."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

LimitName = Literal[
    "requests_per_minute",
    "tokens_per_minute",
    "calls_in_flight",
    "tokens_per_day",
    "nano_usd_per_day",
    "nano_usd_per_month",
]
Scope = Literal["user", "key", "workspace"]


class Limit(BaseModel):
    """One limit as it stands. Nano-dollars are 1e-9 USD; days and months are UTC."""

    name: LimitName
    limit: int | None = Field(description="null: there is none.")
    used: int = Field(description="More than the limit is debt, which refuses the next call.")
    held: int = Field(description="Set aside for calls that are running; those of a rate count as used.")
    remaining: int | None
    resets_at: datetime | None = Field(
        description="When all of it is there again if nothing more is used; null: it is, or once the calls have ended."
    )


class SubjectLimits(BaseModel):
    """The limits of one person, key or workspace. A call is charged to all it belongs to, and each must allow it."""

    scope: Scope
    id: UUID
    limits: list[Limit]
