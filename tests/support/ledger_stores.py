"""Both stores of the ledger behind one face, with a clock that the test holds and rows that it may read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from llm_gateway.limits.ledger import HoldRequest, Usage
from llm_gateway.limits.memory import FinishedCall, HeldCall, MemoryLedger
from llm_gateway.limits.meters import Amount, Meter, SubjectLimits
from llm_gateway.limits.rules import Answer
from llm_gateway.limits.standing import Subject, subjects_of

UNKNOWN = "unknown"
NOW_US = 1_800_000_000_000_000  # 2027-01-15 08:00 UTC, microseconds: PostgreSQL's resolution


@dataclass(frozen=True, slots=True)
class HoldRow:
    """A call in flight."""

    attempt: UUID
    amount: Amount
    held_at_us: int
    lease_expires_us: int
    subjects: tuple[Subject, ...]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A finished call. Of a voided one `usage` is nothing."""

    state: str
    usage: Usage
    held: Amount
    held_at_us: int
    settled_at_us: int
    subjects: tuple[Subject, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a store holds at one moment; look at it before the next."""

    meters: Mapping[Subject, Meter]
    holds: Mapping[str, HoldRow]


def figures(meter: Meter) -> tuple[object, ...]:
    """All that the row of a meter says, to compare."""
    return (
        meter.requests.tat_ns,
        meter.requests.limit,
        meter.tokens.tat_ns,
        meter.tokens.limit,
        meter.tokens.returned_ns,
        meter.in_flight,
        meter.held_tokens,
        meter.held_nano_usd,
        meter.day,
        meter.day_tokens,
        meter.day_nano_usd,
        meter.month,
        meter.month_nano_usd,
    )


# What ended: an id, whose hold is meant (None: whoever's), and what it cost (None: it is voided).
End = tuple[str, UUID | None, Usage | None]


class Lost(Exception):
    """The connection was cut before the ledger had committed."""


class Store(Protocol):
    """A ledger that is told what time it is and who asks: everything else is as in ledger.py.

    UNKNOWN is the state of a call that was never held. While `cut` is set, whatever is asked is cut off, and Lost.
    """

    now_us: int
    cut: bool

    async def clear(self) -> None: ...
    async def add_user(self, user_id: UUID) -> None: ...
    async def post(self, ends: Sequence[End], holds: Sequence[tuple[HoldRequest, UUID]]) -> list[Answer | str]: ...
    async def hold(self, request: HoldRequest, attempt: UUID) -> Answer: ...
    async def reprice(self, request_id: str, amount: Amount) -> Answer: ...
    async def settle(self, request_id: str, usage: Usage) -> str: ...
    async def void(self, request_id: str, attempt: UUID | None = None) -> str: ...
    async def renew(self, request_id: str, lease_s: float) -> bool: ...
    async def reap(self) -> int: ...
    async def set_plan(self, name: str, limits: SubjectLimits) -> None: ...
    async def set_default_plan(self, limits: SubjectLimits) -> None: ...
    async def set_limits(self, subject: Subject, limits: SubjectLimits, plan: str | None = None) -> None: ...
    async def snapshot(self, subjects: Iterable[Subject]) -> Snapshot: ...
    async def usage(self, request_ids: Iterable[str]) -> dict[str, list[UsageRow]]: ...


class MemoryStore(Store):
    """The one in memory, or one that is broken on purpose."""

    def __init__(self, make: Callable[[Callable[[], int]], MemoryLedger] = MemoryLedger) -> None:
        self._make = make
        self._begin()

    def _begin(self) -> None:
        self.now_us = NOW_US
        self.cut = False
        self.ledger = self._make(lambda: self.now_us)

    async def clear(self) -> None:
        self._begin()

    async def add_user(self, user_id: UUID) -> None:
        """In memory everybody exists."""

    async def post(self, ends: Sequence[End], holds: Sequence[tuple[HoldRequest, UUID]]) -> list[Answer | str]:
        self._arrive()
        states = [self.ledger.finish(name, usage, attempt=attempt) or UNKNOWN for name, attempt, usage in ends]
        return [*states, *(self.ledger.decide_hold(request, attempt) for request, attempt in holds)]

    async def hold(self, request: HoldRequest, attempt: UUID) -> Answer:
        self._arrive()
        return self.ledger.decide_hold(request, attempt)

    async def reprice(self, request_id: str, amount: Amount) -> Answer:
        self._arrive()
        return self.ledger.decide_reprice(request_id, amount)

    async def settle(self, request_id: str, usage: Usage) -> str:
        self._arrive()
        return self.ledger.finish(request_id, usage) or UNKNOWN

    async def void(self, request_id: str, attempt: UUID | None = None) -> str:
        self._arrive()
        return self.ledger.finish(request_id, None, attempt=attempt) or UNKNOWN

    async def renew(self, request_id: str, lease_s: float) -> bool:
        self._arrive()
        return await self.ledger.renew(request_id, lease_s)

    async def reap(self) -> int:
        self._arrive()
        return await self.ledger.reap()

    def _arrive(self) -> None:
        if self.cut:
            raise Lost

    async def set_plan(self, name: str, limits: SubjectLimits) -> None:
        self.ledger.set_plan(name, limits)

    async def set_default_plan(self, limits: SubjectLimits) -> None:
        self.ledger.set_default_plan(limits)

    async def set_limits(self, subject: Subject, limits: SubjectLimits, plan: str | None = None) -> None:
        self.ledger.set_limits(*subject, limits, plan=plan)

    async def snapshot(self, subjects: Iterable[Subject]) -> Snapshot:
        meters = {subject: meter for subject in subjects if (meter := self.ledger.meter(*subject)) is not None}
        return Snapshot(meters, {held.request.request_id: _hold_row(held) for held in self.ledger.holds()})

    async def usage(self, request_ids: Iterable[str]) -> dict[str, list[UsageRow]]:
        rows: dict[str, list[UsageRow]] = {}
        for request_id in request_ids:
            call = self.ledger.finished(request_id)
            rows[request_id] = [] if call is None else [_usage_row(call)]
        return rows


def _hold_row(held: HeldCall) -> HoldRow:
    return HoldRow(held.attempt, held.amount, held.held_at_us, held.lease_expires_us, subjects_of(held.request))


def _usage_row(call: FinishedCall) -> UsageRow:
    return UsageRow(call.state, call.usage, call.held, call.held_at_us, call.settled_at_us, subjects_of(call.request))
