"""What must be true after every step, whatever the model says: read off the store's own rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

from llm_gateway.limits.gcra import unit_ns
from llm_gateway.limits.ledger import LimitName
from llm_gateway.limits.meters import Amount, Meter, SubjectLimits
from llm_gateway.limits.standing import Subject
from tests.support.ledger_stores import HoldRow, Snapshot, UsageRow, figures

REAPED_WITHIN_US: Final = 60_000_000
DAY_US: Final = 86_400_000_000
MOST_CHARGES: Final = 200
BUDGETS: Final[tuple[LimitName, ...]] = ("tokens_per_day", "nano_usd_per_day", "nano_usd_per_month")
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
NOTHING: Final = Amount()
BLANK: Final = figures(Meter())
FINAL_STATES: Final = {"settled", "voided", "expired"}


class Violation(AssertionError):
    """The ledger broke its promise."""


def require(condition: bool, promise: str, *facts: object) -> None:
    """Raises: Violation."""
    if not condition:
        raise Violation(f"{promise}: {facts}")


@dataclass
class Bucket:
    """A rate, kept as what is missing of it: full at first, never above `limit`, refilled by one every `unit_ns`.

    Whatever finds room in it never exceeds, in any window of any length, limit + length / unit.
    """

    limit: int
    missing_ns: int = 0
    seen_ns: int = 0

    def take(self, now_ns: int, units: int) -> bool:
        """Whether there was room for so many."""
        unit = unit_ns(self.limit)
        self.missing_ns = max(0, self.missing_ns - (now_ns - self.seen_ns)) + units * unit
        self.seen_ns = now_ns
        return self.missing_ns <= self.limit * unit


@dataclass
class Charge:
    """Tokens let through at one moment for one call; fewer once the call is known to have used fewer."""

    request_id: str
    at_ns: int
    tokens: int


@dataclass
class Tally:
    """What one subject's rows add up to, and what was let through since its rates were edited last."""

    days: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    held: tuple[int, int, int] = (0, 0, 0)  # calls, tokens, nano-dollars, before the step
    requests: Bucket | None = None
    tokens: Bucket | None = None
    charges: list[Charge] = field(default_factory=list)

    def used(self, name: LimitName, day: date) -> int:
        """What was settled on that day, or in its month up to that day, by the rows."""
        column = 0 if name == "tokens_per_day" else 1
        first = day.replace(day=1) if name == "nano_usd_per_month" else day
        days = range(first.toordinal(), day.toordinal() + 1)
        return sum(self.days[one][column] for one in days if one in self.days)


@dataclass
class Ended:
    """What one subject's calls that ended in this step used, and how much of it they had not held."""

    used: Amount = NOTHING
    more: Amount = NOTHING

    def add(self, used: Amount, held: Amount) -> None:
        self.used = Amount(self.used.tokens + used.tokens, self.used.cost_nano_usd + used.cost_nano_usd)
        self.more = Amount(
            self.more.tokens + max(0, used.tokens - held.tokens),
            self.more.cost_nano_usd + max(0, used.cost_nano_usd - held.cost_nano_usd),
        )


class Checks:
    """Remembers the rows it has seen, and of what was asked only who each call was for."""

    def __init__(self, limits_of: Callable[[Subject], SubjectLimits]) -> None:
        self.limits_of = limits_of
        self.frozen_until_us = 0
        self.open: Mapping[str, HoldRow] = {}
        self.finished: dict[str, UsageRow] = {}
        self._tallies: defaultdict[Subject, Tally] = defaultdict(Tally)
        self._meters: dict[Subject, tuple[object, ...]] = {}

    def after_edit(self, subjects: Iterable[Subject]) -> None:
        """The limits are others now: what was let through under the old ones is measured, and no longer counts."""
        for subject in subjects:
            tally, limits = self._tallies[subject], self.limits_of(subject)
            self._check_tokens(subject, tally)
            if tally.requests is None or tally.requests.limit != limits.requests_per_minute:
                tally.requests = _bucket(limits.requests_per_minute)
            if tally.tokens is None or tally.tokens.limit != limits.tokens_per_minute:
                tally.tokens, tally.charges = _bucket(limits.tokens_per_minute), []

    def after_step(
        self, now_us: int, snapshot: Snapshot, usage: Mapping[str, list[UsageRow]], *, refused: bool
    ) -> set[Subject]:
        """Every promise holds. `usage` has the rows of the calls that were touched or are no longer held.

        Returns whose meters have changed.
        """
        ended = {request_id: hold for request_id, hold in self.open.items() if request_id not in snapshot.holds}
        paid = self._check_ended(ended, usage)
        for request_id, hold in snapshot.holds.items():
            before = self.open.get(request_id)
            if before != hold:
                require(request_id not in self.finished, "a finished call is never held again", request_id)
                shortened = before is not None and hold.lease_expires_us < before.lease_expires_us
                require(not shortened, "no lease is ever shortened", before, hold)
                self._let_through(now_us, request_id, before, hold)
            limit_us = max(hold.lease_expires_us, self.frozen_until_us) + REAPED_WITHIN_US
            require(now_us <= limit_us, "every hold ends within its lease and a minute", request_id)
        self.open = snapshot.holds
        today = date.fromordinal(_EPOCH_ORDINAL + now_us // DAY_US)
        return self._check_meters(today, snapshot, paid, refused=refused)

    def _check_ended(
        self, ended: Mapping[str, HoldRow], usage: Mapping[str, list[UsageRow]]
    ) -> Mapping[Subject, Ended]:
        """One usage row a call, for good."""
        paid: defaultdict[Subject, Ended] = defaultdict(Ended)
        for request_id, rows in usage.items():
            hold = ended.get(request_id)
            if hold is None:
                known = [self.finished[request_id]] if request_id in self.finished else []
                require(rows == known, "what is finished stays as it is, and nothing else is", request_id, rows)
                continue
            require(len(rows) == 1, "one usage row a call", request_id, rows)
            row = rows[0]
            require(row.held == hold.amount and row.held_at_us == hold.held_at_us, "the row is the hold's", row)
            self._check_price(row)
            self.finished[request_id] = row
            used = Amount(row.usage.counts.total, row.usage.cost_nano_usd)
            for subject in hold.subjects:
                self._settle(self._tallies[subject], request_id, row, used)
                paid[subject].add(used, hold.amount)
        require(ended.keys() <= usage.keys(), "no call ends without a trace", ended.keys() - usage.keys())
        return paid

    def _check_price(self, row: UsageRow) -> None:
        used = Amount(row.usage.counts.total, row.usage.cost_nano_usd)
        require(row.state in FINAL_STATES, "a final state", row)
        if row.state == "voided":
            require(used == Amount(), "what was voided costs nothing", row)
        if row.state == "expired":
            require(used == row.held and row.usage.estimated, "what ran out costs what it held, as an estimate", row)

    def _settle(self, tally: Tally, request_id: str, row: UsageRow, used: Amount) -> None:
        day = tally.days[_EPOCH_ORDINAL + row.settled_at_us // DAY_US]
        day[0] += used.tokens
        day[1] += used.cost_nano_usd
        _shrink(tally.charges, request_id, used.tokens)

    def _let_through(self, now_us: int, request_id: str, before: HoldRow | None, hold: HoldRow) -> None:
        now_ns = now_us * 1000
        for subject in hold.subjects:
            tally = self._tallies[subject]
            if before is None and tally.requests is not None:
                require(tally.requests.take(now_ns, 1), "requests never come faster than the limit", subject, now_us)
            if tally.tokens is None:
                continue
            more = hold.amount.tokens - (before.amount.tokens if before else 0)
            if more > 0:
                tally.charges.append(Charge(request_id, now_ns, more))
            elif more < 0:
                _shrink_by(tally.charges, request_id, -more)
            if len(tally.charges) > MOST_CHARGES:
                self._check_tokens(subject, tally)

    def _check_tokens(self, subject: Subject, tally: Tally) -> None:
        """Tokens really used, counted from when they were let through, never came faster than the limit."""
        if tally.tokens is None:
            return
        settled = 0
        while settled < len(tally.charges) and tally.charges[settled].request_id in self.finished:
            charge = tally.charges[settled]
            require(tally.tokens.take(charge.at_ns, charge.tokens), "tokens within the rate", subject, charge)
            settled += 1
        del tally.charges[:settled]
        bucket = replace(tally.tokens)
        for charge in tally.charges:
            require(bucket.take(charge.at_ns, charge.tokens), "tokens within the rate", subject, charge)

    def _check_meters(
        self, today: date, snapshot: Snapshot, paid: Mapping[Subject, Ended], *, refused: bool
    ) -> set[Subject]:
        changed = set()
        for subject, meter in snapshot.meters.items():
            seen = figures(meter)
            if seen == self._meters.get(subject, BLANK):
                continue
            require(not refused, "a refusal charges nothing", subject, seen, self._meters.get(subject))
            self._meters[subject] = seen
            changed.add(subject)
            self._check_sums(subject, meter, snapshot.holds.values())
            self._check_limits(today, subject, meter, paid.get(subject) or Ended())
            self._tallies[subject].held = (meter.in_flight, meter.held_tokens, meter.held_nano_usd)
        return changed

    def _check_sums(self, subject: Subject, meter: Meter, holds: Iterable[HoldRow]) -> None:
        tally = self._tallies[subject]
        mine = [hold.amount for hold in holds if subject in hold.subjects]
        held = (len(mine), sum(one.tokens for one in mine), sum(one.cost_nano_usd for one in mine))
        require(held == (meter.in_flight, meter.held_tokens, meter.held_nano_usd), "the sums of holds", subject, meter)
        used = [tally.used(name, meter.day) for name in BUDGETS]
        require(used == [meter.day_tokens, meter.day_nano_usd, meter.month_nano_usd], "the sums of usage", subject)

    def _check_limits(self, today: date, subject: Subject, meter: Meter, paid: Ended) -> None:
        """No total grows above its limit, but by what a call used beyond what it held."""
        limits, tally = self.limits_of(subject), self._tallies[subject]
        calls, tokens, nano_usd = tally.held
        if limits.calls_in_flight is not None:
            require(meter.in_flight <= max(calls, limits.calls_in_flight), "calls in flight", subject, meter)
        for name in BUDGETS:
            limit: int | None = getattr(limits, name)
            if limit is None:
                continue
            is_tokens = name == "tokens_per_day"
            used = tally.used(name, today)
            total = used + (meter.held_tokens if is_tokens else meter.held_nano_usd)
            before = used - (paid.used.tokens if is_tokens else paid.used.cost_nano_usd)
            before += tokens if is_tokens else nano_usd
            debt = paid.more.tokens if is_tokens else paid.more.cost_nano_usd
            require(total <= max(before, limit) + debt, "nothing is overspent but by debt", subject, name, total, limit)


def _bucket(limit: int | None) -> Bucket | None:
    return None if limit is None else Bucket(limit)


def _shrink(charges: Sequence[Charge], request_id: str, used: int) -> None:
    """Of the call's charges so many tokens are left, the first ones."""
    for charge in charges:
        if charge.request_id == request_id:
            charge.tokens = min(charge.tokens, used)
            used -= charge.tokens


def _shrink_by(charges: Sequence[Charge], request_id: str, less: int) -> None:
    """So many tokens of the call's charges are gone, the last ones."""
    for charge in reversed(charges):
        if charge.request_id == request_id:
            gone = min(charge.tokens, less)
            charge.tokens -= gone
            less -= gone
