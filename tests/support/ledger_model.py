"""What the ledger should do, said once more in plain Python: the oracle of its simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from uuid import UUID

from tests.support.ledger import TestLimits, at

MINUTE_NS = 60_000_000_000
FOR_EVER_MS = 9_000_000_000_000


@dataclass
class ModelHold:
    """A call in flight."""

    request_id: str
    attempt: UUID
    tokens: int
    tokens_end_ns: int
    cost_nano_usd: int
    held_at_us: int
    lease_expires_us: int


@dataclass
class ModelUsage:
    """A finished call."""

    request_id: str
    state: str
    held_at_us: int
    settled_at_us: int
    held_tokens: int
    tokens: int
    cost_nano_usd: int


@dataclass(frozen=True)
class Refusal:
    """Why a call does not fit, and for how long."""

    limit_name: str
    wait_ms: int


@dataclass
class UserModel:
    """One user's limits, meter, holds and usage."""

    limits: TestLimits
    requests_tat_ns: int = 0
    requests_limit: int = 0
    tokens_tat_ns: int = 0
    tokens_limit: int = 0
    tokens_returned_ns: int = 0
    month: date = date.min
    made_something: bool = False
    month_nano_usd: int = 0
    holds: dict[str, ModelHold] = field(default_factory=dict)
    usage: dict[str, ModelUsage] = field(default_factory=dict)

    @property
    def held_nano_usd(self) -> int:
        return sum(hold.cost_nano_usd for hold in self.holds.values())

    def hold(
        self, now_us: int, request_id: str, attempt: UUID, *, tokens: int, cost_nano_usd: int, lease_ms: int
    ) -> tuple[str, Refusal | None]:
        """The verdict, and what stood in the way."""
        before = (self.requests_tat_ns, self.tokens_tat_ns, self.tokens_returned_ns, self.month, self.month_nano_usd)
        self._catch_up(now_us)
        refusal = self._refusal(now_us, tokens, cost_nano_usd)
        known = self.holds.get(request_id)
        if refusal is not None or known is not None or request_id in self.usage:
            # nothing is written, so the database has not caught up either
            (self.requests_tat_ns, self.tokens_tat_ns, self.tokens_returned_ns, self.month, self.month_nano_usd) = (
                before
            )
            if known is not None and known.attempt == attempt:
                return "held", None
            if refusal is None:
                return "duplicate", None
            return ("too_large" if refusal.wait_ms == FOR_EVER_MS else "refused"), refusal
        self.made_something = True
        self.requests_limit, self.tokens_limit = self.limits.requests_per_minute, self.limits.tokens_per_minute
        self.requests_tat_ns += unit_ns(self.requests_limit)
        self.tokens_tat_ns += tokens * unit_ns(self.tokens_limit)
        self.holds[request_id] = ModelHold(
            request_id=request_id,
            attempt=attempt,
            tokens=tokens,
            tokens_end_ns=self.tokens_tat_ns + self.tokens_returned_ns,
            cost_nano_usd=cost_nano_usd,
            held_at_us=now_us,
            lease_expires_us=now_us + lease_ms * 1000,
        )
        return "held", None

    def finish(self, now_us: int, request_id: str, state: str, tokens: int, cost_nano_usd: int) -> str:
        """The state the call is in afterwards."""
        if request_id not in self.holds:
            return self.usage[request_id].state if request_id in self.usage else "unknown"
        hold = self.holds.pop(request_id)
        if state == "expired":
            tokens, cost_nano_usd = hold.tokens, hold.cost_nano_usd
        now_ns, unit = now_us * 1000, unit_ns(self.tokens_limit)
        if tokens > hold.tokens:
            self.tokens_tat_ns = max(self.tokens_tat_ns, now_ns) + (tokens - hold.tokens) * unit
        else:
            unpassed_ns = hold.tokens_end_ns - self.tokens_returned_ns - now_ns
            returned_ns = max(0, min((hold.tokens - tokens) * unit, unpassed_ns))
            self.tokens_tat_ns -= returned_ns
            self.tokens_returned_ns += returned_ns
        self._roll_over(now_us)
        self.month_nano_usd += cost_nano_usd
        self.usage[request_id] = ModelUsage(
            request_id=request_id,
            state=state,
            held_at_us=hold.held_at_us,
            settled_at_us=now_us,
            held_tokens=hold.tokens,
            tokens=tokens,
            cost_nano_usd=cost_nano_usd,
        )
        return state

    def renew(self, now_us: int, request_id: str, lease_ms: int) -> bool:
        hold = self.holds.get(request_id)
        if hold is not None:
            hold.lease_expires_us = max(hold.lease_expires_us, now_us + lease_ms * 1000)
        return hold is not None

    def overdue(self, now_us: int) -> list[str]:
        return [hold.request_id for hold in self.holds.values() if hold.lease_expires_us <= now_us]

    def _catch_up(self, now_us: int) -> None:
        now_ns = now_us * 1000
        self._roll_over(now_us)
        self.requests_tat_ns = rescaled(
            self.requests_tat_ns, now_ns, self.requests_limit, self.limits.requests_per_minute
        )
        if self.tokens_tat_ns > now_ns and self.tokens_limit != self.limits.tokens_per_minute:
            self.tokens_returned_ns += self.tokens_tat_ns - now_ns
        self.tokens_tat_ns = rescaled(self.tokens_tat_ns, now_ns, self.tokens_limit, self.limits.tokens_per_minute)

    def _roll_over(self, now_us: int) -> None:
        month = first_of_month(now_us)
        if month > self.month:
            self.month, self.month_nano_usd = month, 0

    def _refusal(self, now_us: int, tokens: int, cost_nano_usd: int) -> Refusal | None:
        limits, now_ns = self.limits, now_us * 1000
        waits = {
            "requests_per_minute": FOR_EVER_MS
            if limits.requests_per_minute == 0
            else wait_ms(self.requests_tat_ns, now_ns, 1, limits.requests_per_minute),
            "tokens_per_minute": FOR_EVER_MS
            if tokens > limits.tokens_per_minute
            else wait_ms(self.tokens_tat_ns, now_ns, tokens, limits.tokens_per_minute),
            "calls_in_flight": FOR_EVER_MS
            if limits.calls_in_flight == 0
            else 1000 * (len(self.holds) >= limits.calls_in_flight),
            "nano_usd_per_month": self._money_wait_ms(now_us, cost_nano_usd),
        }
        longest = max(waits.values())
        if longest == 0:
            return None
        return Refusal(next(name for name, wait in waits.items() if wait == longest), longest)

    def _money_wait_ms(self, now_us: int, cost_nano_usd: int) -> int:
        limit = self.limits.nano_usd_per_month
        if cost_nano_usd == 0 or self.month_nano_usd + self.held_nano_usd + cost_nano_usd <= limit:
            return 0
        if cost_nano_usd > limit:
            return FOR_EVER_MS
        if self.month_nano_usd + cost_nano_usd <= limit:
            return 1000
        return -(-(start_of_next_month_us(now_us) - now_us) // 1000)


def unit_ns(units_per_minute: int) -> int:
    return -(-MINUTE_NS // max(units_per_minute, 1))


def wait_ms(tat_ns: int, now_ns: int, units: int, limit: int) -> int:
    """Until so many units fit: 0 when they do."""
    return max(0, -(-(tat_ns + units * unit_ns(limit) - now_ns - limit * unit_ns(limit)) // 1_000_000))


def rescaled(tat_ns: int, now_ns: int, old_limit: int, new_limit: int) -> int:
    """The same number of units ahead of now as before the edit, or nothing."""
    if tat_ns <= now_ns:
        return now_ns
    return now_ns + -(-(tat_ns - now_ns) * unit_ns(new_limit) // unit_ns(old_limit))


def first_of_month(now_us: int) -> date:
    return at(now_us).date().replace(day=1)


def start_of_next_month_us(now_us: int) -> int:
    month = first_of_month(now_us)
    following = date(month.year + month.month // 12, month.month % 12 + 1, 1)
    return int(datetime(following.year, following.month, 1, tzinfo=UTC).timestamp()) * 1_000_000
