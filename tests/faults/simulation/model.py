"""What the ledger should do, said once more in plain Python: the oracle.

It remembers calls and adds them up when asked, where the ledger keeps meters; only the rates are kept as there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final, get_args
from uuid import UUID

from llm_gateway.limits.ledger import HoldRequest, LimitName, LimitState
from llm_gateway.limits.meters import Amount, Meter, SubjectLimits
from llm_gateway.limits.rules import Answer
from llm_gateway.limits.standing import Subject, subjects_of
from tests.faults.simulation.model_rate import ModelRate, charge, give_back, unit_ns, up
from tests.support.ledger_stores import UNKNOWN

FOR_EVER_MS: Final = 9_000_000_000_000
DAY_US: Final = 86_400_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LIMIT_NAMES: Final[tuple[LimitName, ...]] = get_args(LimitName)
NOTHING: Final = Amount()


@dataclass
class ModelCall:
    """A call from its hold to its end."""

    request: HoldRequest
    attempt: UUID
    amount: Amount
    held_at_us: int
    lease_expires_us: int
    ends_ns: dict[Subject, int]
    state: str = "held"
    used: Amount = NOTHING
    settled_at_us: int = 0


@dataclass
class ModelSubject:
    """Whose calls are added up; `days` has what was settled, by days since 1970."""

    requests: ModelRate = field(default_factory=ModelRate)
    tokens: ModelRate = field(default_factory=ModelRate)
    open: dict[str, ModelCall] = field(default_factory=dict)
    days: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    named: bool = False
    settled_on: int | None = None  # the day on which a call ended last

    def held(self) -> Amount:
        return Amount(
            sum(call.amount.tokens for call in self.open.values()),
            sum(call.amount.cost_nano_usd for call in self.open.values()),
        )

    def used(self, name: LimitName, day: int) -> int:
        """Of the day or month that `day` is in, what was settled."""
        if name == "tokens_per_day":
            return self.days[day][0] if day in self.days else 0
        if name == "nano_usd_per_day":
            return self.days[day][1] if day in self.days else 0
        first = (first_of_month(day) - EPOCH.date()).days
        return sum(self.days[one][1] for one in range(first, day + 1) if one in self.days)

    def row(self) -> Meter | None:
        """What the meter must say; None before the first change."""
        if not self.named:
            return None
        held, day = self.held(), self.settled_on
        meter = Meter(in_flight=len(self.open), held_tokens=held.tokens, held_nano_usd=held.cost_nano_usd)
        if day is not None:
            meter.day, meter.month = date_of(day), first_of_month(day)
            meter.day_tokens = self.used("tokens_per_day", day)
            meter.day_nano_usd = self.used("nano_usd_per_day", day)
            meter.month_nano_usd = self.used("nano_usd_per_month", day)
        for rate, mine in ((meter.requests, self.requests), (meter.tokens, self.tokens)):
            rate.tat_ns, rate.limit, rate.returned_ns = mine.full_at_ns, mine.limit, mine.taken_back_ns
        return meter


class Model:
    """Every subject, every call, and what limits them."""

    def __init__(self) -> None:
        self.now_us = 0
        self.subjects: defaultdict[Subject, ModelSubject] = defaultdict(ModelSubject)
        self.calls: dict[str, ModelCall] = {}
        self.touched: set[Subject] = set()
        self.default_plan = SubjectLimits()
        self.plans: dict[str, SubjectLimits] = {}
        self.own: dict[Subject, tuple[SubjectLimits, str | None]] = {}
        self._limits: dict[Subject, SubjectLimits] = {}

    @property
    def today(self) -> int:
        return self.now_us // DAY_US

    @property
    def now_ns(self) -> int:
        return self.now_us * 1000

    def set_plan(self, name: str, limits: SubjectLimits) -> None:
        self.plans[name] = limits
        self._limits.clear()

    def set_default_plan(self, limits: SubjectLimits) -> None:
        self.default_plan = limits
        self._limits.clear()

    def set_limits(self, subject: Subject, limits: SubjectLimits, plan: str | None) -> None:
        self.own[subject] = (limits, plan)
        self._limits.clear()

    def limits_of(self, subject: Subject) -> SubjectLimits:
        if subject not in self._limits:
            own, plan = self.own.get(subject, (SubjectLimits(), None))
            below = self.plans[plan] if plan else self.default_plan if subject[0] == "user" else SubjectLimits()
            values: dict[str, int | None] = {}
            for name in LIMIT_NAMES:
                value: int | None = getattr(own, name)
                values[name] = getattr(below, name) if value is None else value
            self._limits[subject] = SubjectLimits(**values)
        return self._limits[subject]

    def hold(self, request: HoldRequest, attempt: UUID) -> Answer:
        asked = Amount(request.tokens, request.cost_nano_usd)
        subjects = subjects_of(request)
        call = self.calls.get(request.request_id)
        if call is not None and call.state == "held" and call.attempt == attempt:
            return self._answer("held", subjects)
        refusal = self._refusal(subjects, NOTHING, asked, new=True)
        if refusal is not None:
            return refusal
        if call is not None:
            return self._answer("duplicate", subjects)
        call = ModelCall(request, attempt, asked, self.now_us, self.now_us + round(request.lease_s * 1000) * 1000, {})
        self.calls[request.request_id] = call
        for one in subjects:
            subject, rate = self.subjects[one], self._tokens_now(one)
            subject.named = True
            subject.open[request.request_id] = call
            subject.requests = subject.requests.seen_at(self.now_ns, self.limits_of(one).requests_per_minute)
            charge(subject.requests, 1)
            charge(rate, asked.tokens)
            call.ends_ns[one] = rate.full_at_ns + rate.taken_back_ns if rate.counts else 0
        return self._answer("held", subjects)

    def reprice(self, request_id: str, asked: Amount) -> Answer:
        call = self.calls.get(request_id)
        if call is None or call.state != "held":
            return Answer(verdict="lost")
        subjects = subjects_of(call.request)
        refusal = self._refusal(subjects, call.amount, asked, new=False)
        if refusal is not None:
            return refusal
        for one in subjects:
            rate, more = self._tokens_now(one), asked.tokens - call.amount.tokens
            if more > 0:
                charge(rate, more)
            elif rate.counts and rate.limit is not None:
                give_back(rate, self.now_ns, -more, call.ends_ns[one])
        call.amount = asked
        return self._answer("held", subjects)

    def finish(self, request_id: str, state: str, used: Amount, attempt: UUID | None = None) -> str:
        call = self.calls.get(request_id)
        if call is None:
            return UNKNOWN
        if call.state != "held":
            return call.state
        if attempt not in (None, call.attempt):
            return UNKNOWN
        call.state, call.used, call.settled_at_us = state, used, self.now_us
        for one in subjects_of(call.request):
            self.touched.add(one)
            subject = self.subjects[one]
            del subject.open[request_id]
            subject.settled_on = self.today
            subject.days[self.today][0] += used.tokens
            subject.days[self.today][1] += used.cost_nano_usd
            rate = subject.tokens
            if rate.limit is None:
                continue
            if used.tokens > call.amount.tokens:
                over_ns = (used.tokens - call.amount.tokens) * unit_ns(rate.limit)
                rate.full_at_ns = max(rate.full_at_ns, self.now_ns) + over_ns
            else:
                give_back(rate, self.now_ns, call.amount.tokens - used.tokens, call.ends_ns[one])
        return state

    def renew(self, request_id: str, lease_s: float) -> bool:
        call = self.calls.get(request_id)
        if call is None or call.state != "held":
            return False
        call.lease_expires_us = max(call.lease_expires_us, self.now_us + round(lease_s * 1000) * 1000)
        return True

    def reap(self) -> int:
        overdue = [call for call in self.open_calls().values() if call.lease_expires_us <= self.now_us]
        assert len(overdue) <= 100, "the simulation keeps fewer calls than a reaper takes at once"
        for call in overdue:
            self.finish(call.request.request_id, "expired", call.amount)
        return len(overdue)

    def open_calls(self) -> dict[str, ModelCall]:
        return {
            request_id: call
            for (scope, _), subject in self.subjects.items()
            if scope == "user"
            for request_id, call in subject.open.items()
        }

    def _tokens_now(self, one: Subject) -> ModelRate:
        """The subject's token rate, caught up for good."""
        subject = self.subjects[one]
        self.touched.add(one)
        subject.tokens = subject.tokens.seen_at(self.now_ns, self.limits_of(one).tokens_per_minute)
        return subject.tokens

    def _refusal(self, subjects: tuple[Subject, ...], held: Amount, asked: Amount, *, new: bool) -> Answer | None:
        waits = [
            (wait_ms, one, name)
            for one in subjects
            for name in LIMIT_NAMES
            if (wait_ms := self._wait_ms(one, name, held, asked, new=new)) > 0
        ]
        if not waits:
            return None
        longest = max(wait_ms for wait_ms, _, _ in waits)
        wait_ms, one, name = next(wait for wait in waits if wait[0] == longest)
        return self._answer(
            "too_large" if wait_ms == FOR_EVER_MS else "refused",
            subjects,
            scope=one[0],
            limit_name=name,
            retry_after_ms=wait_ms,
            state=self.state(one, name),
        )

    def _wait_ms(self, one: Subject, name: LimitName, held: Amount, asked: Amount, *, new: bool) -> int:
        limit: int | None = getattr(self.limits_of(one), name)
        subject = self.subjects[one]
        if limit is None:
            return 0
        if name in {"requests_per_minute", "calls_in_flight"}:
            return self._call_wait_ms(subject, name, limit) if new else 0
        is_tokens = name.startswith("tokens")
        units, before = (asked.tokens, held.tokens) if is_tokens else (asked.cost_nano_usd, held.cost_nano_usd)
        if units <= before and not (new and name == "tokens_per_minute"):
            return 0
        if name == "tokens_per_minute":
            missing_ns = subject.tokens.seen_at(self.now_ns, limit).missing(self.now_ns, units - before)
            return FOR_EVER_MS if units > limit else max(0, up(missing_ns, 10**6))
        used = subject.used(name, self.today)
        others = self._held(subject, name) - before
        if used + others + units <= limit:
            return 0
        least_ms = 1000 if used + units <= limit else self._reset_ms(name)
        return FOR_EVER_MS if units > limit else least_ms

    def _call_wait_ms(self, subject: ModelSubject, name: LimitName, limit: int) -> int:
        if limit == 0:
            return FOR_EVER_MS
        if name == "calls_in_flight":
            return 1000 * (len(subject.open) >= limit)
        missing_ns = subject.requests.seen_at(self.now_ns, limit).missing(self.now_ns, 1)
        return max(0, up(missing_ns, 10**6))

    def _held(self, subject: ModelSubject, name: LimitName) -> int:
        held = subject.held()
        return held.tokens if name == "tokens_per_day" else held.cost_nano_usd

    def _reset_ms(self, name: LimitName) -> int:
        if name == "nano_usd_per_month":
            first = first_of_month(self.today)
            following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
            end_us = (following - EPOCH.date()).days * DAY_US
        else:
            end_us = (self.today + 1) * DAY_US
        return up(end_us - self.now_us, 1000)

    def state(self, one: Subject, name: LimitName) -> LimitState | None:
        limit: int | None = getattr(self.limits_of(one), name)
        subject = self.subjects[one]
        if name == "requests_per_minute":
            return subject.requests.seen_at(self.now_ns, limit).state(self.now_ns)
        if name == "tokens_per_minute":
            return subject.tokens.seen_at(self.now_ns, limit).state(self.now_ns)
        if limit is None:
            return None
        if name == "calls_in_flight":
            return LimitState(limit, max(0, limit - len(subject.open)), 0.0)
        used = subject.used(name, self.today) + self._held(subject, name)
        return LimitState(limit, max(0, limit - used), self._reset_ms(name) / 1000)

    def _answer(self, verdict: str, subjects: tuple[Subject, ...], **rest: object) -> Answer:
        tightest: dict[str, LimitState | None] = {}
        for name in ("requests_per_minute", "tokens_per_minute"):
            states = [state for one in subjects if (state := self.state(one, name)) is not None]
            tightest[name] = min(states, key=lambda state: state.remaining, default=None)
        return Answer(
            verdict=verdict,  # type: ignore[arg-type]
            requests=tightest["requests_per_minute"],
            tokens=tightest["tokens_per_minute"],
            **rest,  # type: ignore[arg-type]
        )


def date_of(day: int) -> date:
    return (EPOCH + timedelta(days=day)).date()


def first_of_month(day: int) -> date:
    return date_of(day).replace(day=1)
