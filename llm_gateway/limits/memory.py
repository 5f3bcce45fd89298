"""The ledger in this process's memory: the whole promise of ledger.py for one process, and gone with it.

For demonstrations, and for tests without a database. Each step happens at once, between two awaits of anybody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args
from uuid import UUID, uuid4

from core.errors import InternalFault
from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import Hold, HoldRequest, Ledger, LimitName, Scope, Usage
from llm_gateway.limits.meters import Amount, Meter, SubjectLimits
from llm_gateway.limits.rules import Answer, hold_from_answer, require_rehearsed
from llm_gateway.limits.standing import Standing, Subject, subjects_of

# What the plan `free` gives (migrations/*_gateway_plans.sql): the limits of everybody, until somebody says otherwise.
FREE: Final = SubjectLimits(
    requests_per_minute=60,
    tokens_per_minute=200_000,
    calls_in_flight=10,
    tokens_per_day=2_000_000,
    nano_usd_per_day=2_000_000_000,
    nano_usd_per_month=5_000_000_000,
)
UNLIMITED: Final = SubjectLimits()
REAPED_AT_ONCE: Final = 100
KEPT_FOR_US: Final = 400 * 86_400_000_000
_MOST_TOKENS: Final = 1_000_000_000
_MOST_NANO_USD: Final = 1_000_000_000_000_000
_VOIDED: Final = Usage(counts=TokenCounts(), cost_nano_usd=0)

State = Literal["settled", "voided", "expired"]


@dataclass(slots=True)
class HeldCall:
    """A call in flight: a row of gateway.holds. Microseconds since 1970.

    `attempt` says who asked: the same asking again is answered again, anybody else's is a duplicate.
    `token_ends_ns` is where the call's stretch of each subject's token rate ends (gcra.py).
    """

    request: HoldRequest
    attempt: UUID
    amount: Amount
    held_at_us: int
    lease_expires_us: int
    token_ends_ns: dict[Subject, int]


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """A finished call: a row of gateway.usage. Microseconds since 1970. The usage of a voided call is nothing."""

    request: HoldRequest
    state: State
    usage: Usage
    held: Amount
    held_at_us: int
    settled_at_us: int


def now_us() -> int:
    """Microseconds since 1970, PostgreSQL's resolution."""
    return time.time_ns() // 1000


class MemoryLedger(Ledger):
    """Holds and settles in memory. Users need not exist anywhere, and have the default plan unless told otherwise.

    `clock` is microseconds since 1970.
    """

    def __init__(self, clock: Callable[[], int] = now_us, *, default_plan: SubjectLimits = FREE) -> None:
        self._clock = clock
        self._default_plan = default_plan
        self._plans: dict[str, SubjectLimits] = {}
        self._own: dict[Subject, tuple[SubjectLimits, str | None]] = {}
        self._meters: dict[Subject, Meter] = {}
        self._holds: dict[str, HeldCall] = {}
        self._finished: dict[str, FinishedCall] = {}

    def set_default_plan(self, limits: SubjectLimits) -> None:
        """The next call of every user without a plan of their own obeys these."""
        self._default_plan = limits

    def set_plan(self, name: str, limits: SubjectLimits) -> None:
        """The next call of everybody on the plan obeys these."""
        self._plans[name] = limits

    def set_limits(
        self, scope: Scope, subject_id: UUID, limits: SubjectLimits = UNLIMITED, *, plan: str | None = None
    ) -> None:
        """The next call of the subject obeys these, and its plan where they are None.

        Raises: KeyError where there is no such plan.
        """
        if plan is not None and plan not in self._plans:
            raise KeyError(plan)
        self._own[scope, subject_id] = (limits, plan)

    def limits_of(self, scope: Scope, subject_id: UUID) -> SubjectLimits:
        """What the subject's next call is measured by."""
        own, plan = self._own.get((scope, subject_id), (UNLIMITED, None))
        if plan is not None:
            return own.over(self._plans[plan])
        return own.over(self._default_plan) if scope == "user" else own

    def meter(self, scope: Scope, subject_id: UUID) -> Meter | None:
        """What the subject had used when it was charged or paid last; None where no call ever was."""
        return self._meters.get((scope, subject_id))

    def holds(self) -> Iterable[HeldCall]:
        """The calls in flight, oldest first."""
        return self._holds.values()

    def finished(self, request_id: str) -> FinishedCall | None:
        """How the call ended; None for one that runs, and for one that never was."""
        return self._finished.get(request_id)

    def usage(self) -> Iterable[FinishedCall]:
        """The finished calls, in the order in which they ended."""
        return self._finished.values()

    async def hold(self, request: HoldRequest) -> Hold:
        answer = self.decide_hold(request, uuid4())
        return hold_from_answer(request.request_id, request.tokens, request.cost_nano_usd, answer)

    async def reprice(self, request_id: str, tokens: int, cost_nano_usd: int) -> Hold:
        answer = self.decide_reprice(request_id, Amount(tokens, cost_nano_usd))
        return hold_from_answer(request_id, tokens, cost_nano_usd, answer)

    async def settle(self, request_id: str, usage: Usage) -> None:
        self.finish(request_id, usage)

    async def void(self, request_id: str) -> None:
        self.finish(request_id, None)

    async def renew(self, request_id: str, lease_s: float) -> bool:
        lease_us = _lease_us(lease_s)
        held = self._holds.get(request_id)
        if held is None:
            return False
        held.lease_expires_us = max(held.lease_expires_us, self._clock() + lease_us)
        return True

    async def reap(self) -> int:
        now_us = self._clock()
        overdue = [held for held in self._holds.values() if held.lease_expires_us <= now_us]
        overdue.sort(key=lambda held: held.lease_expires_us)
        for held in overdue[:REAPED_AT_ONCE]:
            worst = Usage(
                counts=TokenCounts(input=held.amount.tokens),
                cost_nano_usd=held.amount.cost_nano_usd,
                estimated=True,
                outcome="unknown",
            )
            self._end(held, "expired", worst)
        return min(len(overdue), REAPED_AT_ONCE)

    async def upkeep(self) -> None:
        oldest_us = self._clock() - KEPT_FOR_US
        self._finished = {name: call for name, call in self._finished.items() if call.settled_at_us >= oldest_us}

    async def rehearse(self) -> bool:
        elsewhere = MemoryLedger(self._clock, default_plan=UNLIMITED)
        answers = []
        for name in get_args(LimitName):
            key_id = uuid4()
            elsewhere.set_limits("key", key_id, SubjectLimits(**{name: 0}))
            asked = HoldRequest(str(key_id), uuid4(), "rehearsal", tokens=2, cost_nano_usd=2, key_id=key_id)
            answers.append(elsewhere.decide_hold(asked, uuid4()))
        require_rehearsed(answers)
        return True

    async def aclose(self) -> None:
        return None

    def decide_hold(self, request: HoldRequest, attempt: UUID) -> Answer:
        """Whether the call may be made; then it is charged. The same attempt again is answered again, and free."""
        asked = _amount(request.tokens, request.cost_nano_usd)
        lease_us = _lease_us(request.lease_s)
        standing = self._standing(request)
        known = self._holds.get(request.request_id)
        if known is not None and known.attempt == attempt:
            return standing.completed(Answer(verdict="held"))
        refusal = standing.refusal(lambda meter, limits: meter.waits_ms(standing.now_us, limits, asked))
        if refusal is not None:
            return standing.completed(refusal)
        if known is not None or request.request_id in self._finished:
            return standing.completed(Answer(verdict="duplicate"))
        self._holds[request.request_id] = HeldCall(
            request,
            attempt,
            asked,
            standing.now_us,
            standing.now_us + lease_us,
            {subject: meter.hold(asked) for subject, meter in standing.meters.items()},
        )
        self._meters.update(standing.meters)
        return standing.completed(Answer(verdict="held"))

    def decide_reprice(self, request_id: str, asked: Amount) -> Answer:
        """Whether the call may hold so much instead; then it does."""
        _amount(asked.tokens, asked.cost_nano_usd)
        held = self._holds.get(request_id)
        if held is None:
            return Answer(verdict="lost")
        standing = self._standing(held.request)
        refusal = standing.refusal(
            lambda meter, limits: meter.more_waits_ms(standing.now_us, limits, held.amount, asked)
        )
        if refusal is not None:
            return standing.completed(refusal)
        for subject, meter in standing.meters.items():
            meter.rehold(standing.now_us, held.amount, asked, held.token_ends_ns[subject])
        held.amount = asked
        answer = standing.completed(Answer(verdict="held"))
        for subject, meter in standing.meters.items():
            meter.requests = self._meters[subject].requests  # it is no further request
            self._meters[subject] = meter
        return answer

    def finish(self, request_id: str, usage: Usage | None, *, attempt: UUID | None = None) -> State | None:
        """The call has cost this (None: it is voided). With an attempt, only where that attempt made the hold.

        Returns the state the call is in now, whoever brought it there; None for one that was never held.
        """
        _amount(usage.counts.total, usage.cost_nano_usd) if usage else None
        held = self._holds.get(request_id)
        if held is not None and attempt in {None, held.attempt}:
            self._end(held, "voided" if usage is None else "settled", usage or _VOIDED)
        finished = self.finished(request_id)
        return finished.state if finished else None

    def _end(self, held: HeldCall, state: State, usage: Usage) -> None:
        now_us = self._clock()
        del self._holds[held.request.request_id]
        used = Amount(usage.counts.total, usage.cost_nano_usd)
        for subject, end_ns in held.token_ends_ns.items():
            self._meters[subject].finish(now_us, held.amount, used, end_ns)
        self._finished[held.request.request_id] = FinishedCall(
            held.request, state, usage, held.amount, held.held_at_us, now_us
        )

    def _standing(self, request: HoldRequest) -> Standing:
        """Now, on copies: a refusal changes nothing."""
        now_us = self._clock()
        limits = {subject: self.limits_of(*subject) for subject in subjects_of(request)}
        meters = {subject: self._meters.get(subject, Meter()).copy() for subject in limits}
        for subject, meter in meters.items():
            meter.catch_up(now_us, limits[subject])
        return Standing(now_us, meters, limits)


def _amount(tokens: int, cost_nano_usd: int) -> Amount:
    if not (0 <= tokens <= _MOST_TOKENS and 0 <= cost_nano_usd <= _MOST_NANO_USD):
        raise InternalFault
    return Amount(tokens, cost_nano_usd)


def _lease_us(lease_s: float) -> int:
    if not 1 <= lease_s <= 3600:
        raise InternalFault
    return round(lease_s * 1000) * 1000
