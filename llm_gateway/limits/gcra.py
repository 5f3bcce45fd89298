"""A rate as one timestamp (GCRA), in whole nanoseconds. Pure; the same arithmetic as in migrations/*_gateway_*.sql.

The timestamp, the "theoretical arrival time" (tat), is when all of the limit is there again. A unit moves it on by
60 s / limit, rounded up: never faster than the limit. A call fits when the tat is then no further ahead than `limit`
units. So `limit` units fit at once, and the wait of a refused call is exact (docs/decisions/0061).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MINUTE_NS: Final = 60_000_000_000
MILLISECOND_NS: Final = 1_000_000
LATEST_TAT_NS: Final = 8_000_000_000_000_000_000  # the year 2223: PostgreSQL's bigint ends soon after


def rounded_up(dividend: int, divisor: int) -> int:
    """The quotient, rounded up; also of a dividend below zero."""
    return -(-dividend // divisor)


def unit_ns(units_per_minute: int) -> int:
    """How long one unit takes to refill."""
    return rounded_up(MINUTE_NS, max(units_per_minute, 1))


@dataclass(slots=True)
class Rate:
    """How much of a limit per minute one subject has used.

    `tat_ns` was written under `limit` (None: it never was); while there is no limit (`in_force` is False) it stays as
    it is. `returned_ns` is how far the tat was ever taken back: it bounds what a later settlement may give back.
    """

    tat_ns: int = 0
    limit: int | None = None
    returned_ns: int = 0
    in_force: bool = False

    def catch_up(self, now_ns: int, limit: int | None) -> None:
        """What has passed is refilled; after an edit as many units count as used of the new limit as did of the old."""
        self.in_force = limit is not None
        if limit is None:
            return
        ahead_ns = self.tat_ns - now_ns
        if ahead_ns <= 0:
            self.tat_ns = now_ns
        elif self.limit is not None and limit != self.limit:
            # what calls in flight held under the old limit is not given back under the new one
            self.returned_ns += ahead_ns
            self.tat_ns = min(
                now_ns + rounded_up(ahead_ns * unit_ns(limit), unit_ns(self.limit)),
                LATEST_TAT_NS,
            )
        self.limit = limit

    def wait_ms(self, now_ns: int, units: int, charged: int = 0) -> int | None:
        """How long until so many units fit, of which some are charged already (0: they do); None: they never will."""
        if self.limit is None or not self.in_force:
            return 0
        if units > self.limit:
            return None
        over_ns = self.tat_ns - now_ns - (self.limit - units + charged) * unit_ns(self.limit)
        return max(0, rounded_up(over_ns, MILLISECOND_NS))

    def charge(self, units: int) -> int:
        """So many units are used; returns the end of their stretch of time, for `give_back`, 0 without a limit."""
        if self.limit is None or not self.in_force:
            return 0
        self.tat_ns += units * unit_ns(self.limit)
        return self.tat_ns + self.returned_ns

    def owe(self, now_ns: int, units: int) -> None:
        """So many units are used, whether they fit or not."""
        if self.limit is not None:
            self.tat_ns = min(max(self.tat_ns, now_ns) + units * unit_ns(self.limit), LATEST_TAT_NS)

    def give_back(self, now_ns: int, units: int, end_ns: int) -> None:
        """Of so many units charged up to `end_ns`, what has not been refilled yet is there again.

        What of their stretch of time has passed was refilled already: returning it a second time would let more
        through than the limit. The stretch ends where it ended at the charge, less what has been given back since.
        """
        if self.limit is not None:
            back_ns = max(0, min(units * unit_ns(self.limit), end_ns - self.returned_ns - now_ns))
            self.tat_ns -= back_ns
            self.returned_ns += back_ns

    def remaining(self, now_ns: int) -> int:
        """How many units fit now, of a rate that has caught up; 0 where it never had a limit."""
        limit = self.limit or 0
        return max(0, limit - rounded_up(self.tat_ns - now_ns, unit_ns(limit)))

    def reset_ms(self, now_ns: int) -> int:
        """How long until all of the limit is there again."""
        return max(0, rounded_up(self.tat_ns - now_ns, MILLISECOND_NS))
