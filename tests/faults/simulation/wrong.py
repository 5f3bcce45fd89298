"""Ledgers that are wrong on purpose, each as somebody's really was: the simulation must find every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final
from uuid import UUID

from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import HoldRequest, Scope, Usage
from llm_gateway.limits.memory import UNLIMITED, HeldCall, MemoryLedger, State
from llm_gateway.limits.meters import DAY_US, Amount, SubjectLimits
from llm_gateway.limits.rules import Answer
from llm_gateway.limits.standing import Standing, subjects_of


class GivesBackTwice(MemoryLedger):
    """Tokens that were not used are given back in full, also what time has refilled already."""

    def _end(self, held: HeldCall, state: State, usage: Usage) -> None:
        for subject in held.token_ends_ns:
            held.token_ends_ns[subject] = 2**62
        super()._end(held, state, usage)


class ReapsForNothing(MemoryLedger):
    """A call whose process died costs nothing."""

    def _end(self, held: HeldCall, state: State, usage: Usage) -> None:
        free = Usage(counts=TokenCounts(), cost_nano_usd=0, estimated=True, outcome="unknown")
        super()._end(held, state, free if state == "expired" else usage)


class SettlesTwice(MemoryLedger):
    """A settlement that is sent again is charged again."""

    def finish(self, request_id: str, usage: Usage | None, *, attempt: UUID | None = None) -> State | None:
        finished = self.finished(request_id)
        if finished is not None and finished.state == "settled" and usage is not None:
            for subject in subjects_of(finished.request):
                meter = self.meter(*subject)
                if meter is not None:
                    meter.day_tokens += usage.counts.total
                    meter.day_nano_usd += usage.cost_nano_usd
                    meter.month_nano_usd += usage.cost_nano_usd
        return super().finish(request_id, usage, attempt=attempt)


class ForgetsWhatWasMade(MemoryLedger):
    """The id of a call that is over may be used again."""

    def decide_hold(self, request: HoldRequest, attempt: UUID) -> Answer:
        finished = self._finished.pop(request.request_id, None)
        answer = super().decide_hold(request, attempt)
        if finished is not None:
            self._finished[request.request_id] = finished
        return answer


class ChargesWhatItRefuses(MemoryLedger):
    """The first limits are charged before the last are asked, and stay so."""

    def decide_hold(self, request: HoldRequest, attempt: UUID) -> Answer:
        answer = super().decide_hold(request, attempt)
        meter = self.meter("user", request.user_id)
        if answer.verdict == "refused" and meter is not None:
            meter.requests.charge(1)
        return answer


class ChecksBeforeItActs(MemoryLedger):
    """Now and then two calls look at the meters at the same moment, and both fit."""

    _decisions = 0
    _blind = False

    def decide_hold(self, request: HoldRequest, attempt: UUID) -> Answer:
        self._decisions += 1
        self._blind = self._decisions % 25 == 0
        answer = super().decide_hold(request, attempt)
        self._blind = False
        return answer

    def limits_of(self, scope: Scope, subject_id: UUID) -> SubjectLimits:
        limits = super().limits_of(scope, subject_id)
        if not self._blind:
            return limits
        return replace(
            limits, calls_in_flight=None, tokens_per_day=None, nano_usd_per_day=None, nano_usd_per_month=None
        )


class EditsForget(MemoryLedger):
    """Whoever gets another plan begins anew."""

    def set_limits(
        self, scope: Scope, subject_id: UUID, limits: SubjectLimits = UNLIMITED, *, plan: str | None = None
    ) -> None:
        super().set_limits(scope, subject_id, limits, plan=plan)
        meter = self.meter(scope, subject_id)
        if meter is not None:
            meter.requests.tat_ns = meter.tokens.tat_ns = 0


class MidnightFreesHolds(MemoryLedger):
    """What calls in flight hold counts on the day they began, and on no other."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__(clock)
        self._freed: set[str] = set()

    def _standing(self, request: HoldRequest) -> Standing:
        today = self._clock() // DAY_US
        for held in self.holds():
            if held.held_at_us // DAY_US < today and held.request.request_id not in self._freed:
                self._freed.add(held.request.request_id)
                for subject in subjects_of(held.request):
                    self._meters[subject].held_nano_usd -= held.amount.cost_nano_usd
        return super()._standing(request)


class RepricesUnasked(MemoryLedger):
    """A fallback that costs more is not asked whether it fits."""

    _repricing = False

    def decide_reprice(self, request_id: str, asked: Amount) -> Answer:
        self._repricing = True
        answer = super().decide_reprice(request_id, asked)
        self._repricing = False
        return answer

    def limits_of(self, scope: Scope, subject_id: UUID) -> SubjectLimits:
        return UNLIMITED if self._repricing else super().limits_of(scope, subject_id)


class ShortensLeases(MemoryLedger):
    """A renewal counts from now, even when the lease ran longer."""

    async def renew(self, request_id: str, lease_s: float) -> bool:
        for held in self.holds():
            if held.request.request_id == request_id:
                held.lease_expires_us = 0
        return await super().renew(request_id, lease_s)


WRONG: Final = (
    GivesBackTwice,
    ReapsForNothing,
    SettlesTwice,
    ForgetsWhatWasMade,
    ChargesWhatItRefuses,
    ChecksBeforeItActs,
    MidnightFreesHolds,
    RepricesUnasked,
    EditsForget,
    ShortensLeases,
)
