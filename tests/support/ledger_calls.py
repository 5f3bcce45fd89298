"""Calls, limits and amounts of a ledger's tests, in a line each."""

from __future__ import annotations

from typing import Final, get_args
from uuid import UUID, uuid4

from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import HoldRequest, LimitName, Scope, Usage
from llm_gateway.limits.meters import SubjectLimits
from llm_gateway.limits.rules import Answer
from llm_gateway.limits.standing import Subject
from tests.support.ledger_stores import Store

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
LIMIT_NAMES: Final[tuple[LimitName, ...]] = get_args(LimitName)
AMOUNTS: Final[tuple[LimitName, ...]] = (
    "tokens_per_minute",
    "tokens_per_day",
    "nano_usd_per_day",
    "nano_usd_per_month",
)
BUDGETS: Final[tuple[LimitName, ...]] = AMOUNTS[1:]
RATES: Final[tuple[LimitName, ...]] = ("requests_per_minute", "tokens_per_minute")


def limit(name: LimitName, most: int) -> SubjectLimits:
    """This limit and no other."""
    return SubjectLimits(**{name: most})


def usage(tokens: int = 0, cost_nano_usd: int = 0) -> Usage:
    """What a call used."""
    return Usage(counts=TokenCounts(input=tokens), cost_nano_usd=cost_nano_usd)


class Trio:
    """A user, a key and a workspace that call together."""

    def __init__(self, store: Store, user_id: UUID) -> None:
        self.store = store
        self.subjects: dict[Scope, Subject] = {
            "user": ("user", user_id),
            "key": ("key", uuid4()),
            "workspace": ("workspace", uuid4()),
        }

    async def limit(self, scope: Scope, limits: SubjectLimits, plan: str | None = None) -> None:
        """From the next call on."""
        await self.store.set_limits(self.subjects[scope], limits, plan)

    def call(
        self, request_id: str | None = None, *, tokens: int = 0, cost_nano_usd: int = 0, lease_s: float = 3600.0
    ) -> HoldRequest:
        """A call of all three."""
        return HoldRequest(
            request_id or f"req_{uuid4().hex}",
            self.subjects["user"][1],
            "test/model",
            tokens,
            cost_nano_usd,
            lease_s,
            self.subjects["key"][1],
            self.subjects["workspace"][1],
        )

    async def hold(
        self,
        request_id: str | None = None,
        *,
        tokens: int = 0,
        cost_nano_usd: int = 0,
        lease_s: float = 3600.0,
        attempt: UUID | None = None,
    ) -> Answer:
        """What is decided about such a call."""
        request = self.call(request_id, tokens=tokens, cost_nano_usd=cost_nano_usd, lease_s=lease_s)
        return await self.store.hold(request, attempt or uuid4())

    async def ask(self, name: LimitName, units: int, request_id: str | None = None) -> Answer:
        """One call that takes so many units of the limit; for limits of calls always one."""
        if name not in AMOUNTS:
            return await self.hold(request_id)
        if name.startswith("tokens"):
            return await self.hold(request_id, tokens=units)
        return await self.hold(request_id, cost_nano_usd=units)

    async def use_up(self, name: LimitName, units: int) -> None:
        """So many units are held: by one call, or by as many calls."""
        for _ in range(1 if name in AMOUNTS else units):
            answer = await self.ask(name, units)
            assert answer.verdict == "held", answer
