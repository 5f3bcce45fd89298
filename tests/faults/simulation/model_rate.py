"""A rate as the model keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from llm_gateway.limits.ledger import LimitState

MINUTE_NS: Final = 60_000_000_000


@dataclass
class ModelRate:
    """A token bucket as one number: when it is full again, nanoseconds, written under `limit`."""

    full_at_ns: int = 0
    limit: int | None = None
    taken_back_ns: int = 0
    counts: bool = True

    def seen_at(self, now_ns: int, limit: int | None) -> ModelRate:
        """The same rate at this moment, under this limit; without one it stays as it is, and counts nothing."""
        if limit is None:
            return replace(self, counts=False)
        if self.full_at_ns <= now_ns:
            return ModelRate(now_ns, limit, self.taken_back_ns)
        if limit == self.limit:
            return replace(self, counts=True)
        ahead_ns = self.full_at_ns - now_ns
        assert self.limit is not None
        kept_ns = up(ahead_ns * unit_ns(limit), unit_ns(self.limit))
        return ModelRate(now_ns + kept_ns, limit, self.taken_back_ns + ahead_ns)

    def missing(self, now_ns: int, units: int) -> int:
        """Nanoseconds until so many more fit."""
        assert self.limit is not None
        return self.full_at_ns + units * unit_ns(self.limit) - now_ns - self.limit * unit_ns(self.limit)

    def state(self, now_ns: int) -> LimitState | None:
        if self.limit is None or not self.counts:
            return None
        used = up(self.full_at_ns - now_ns, unit_ns(self.limit))
        return LimitState(self.limit, max(0, self.limit - used), up(self.full_at_ns - now_ns, 10**6) / 1000)


def charge(rate: ModelRate, units: int) -> None:
    if rate.limit is not None and rate.counts:
        rate.full_at_ns += units * unit_ns(rate.limit)


def give_back(rate: ModelRate, now_ns: int, units: int, end_ns: int) -> None:
    """What has passed of the call's stretch was refilled already."""
    assert rate.limit is not None
    back_ns = max(0, min(units * unit_ns(rate.limit), end_ns - rate.taken_back_ns - now_ns))
    rate.full_at_ns -= back_ns
    rate.taken_back_ns += back_ns


def unit_ns(units_per_minute: int) -> int:
    return up(MINUTE_NS, max(1, units_per_minute))


def up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
