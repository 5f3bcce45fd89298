"""What one subject has used of its six limits: the row of gateway.meters and its arithmetic, in Python. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

from llm_gateway.limits.gcra import Rate, rounded_up
from llm_gateway.limits.ledger import LimitName, LimitState

MICROSECOND_NS: Final = 1000
MILLISECOND_US: Final = 1000
DAY_US: Final = 86_400_000_000
IN_A_SECOND_MS: Final = 1000  # when calls in flight end, nobody knows
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectLimits:
    """Six limits; None is no limit, 0 forbids. Money is nano-dollars (1e-9 USD); days and months are UTC."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    calls_in_flight: int | None = None
    tokens_per_day: int | None = None
    nano_usd_per_day: int | None = None
    nano_usd_per_month: int | None = None

    def over(self, others: SubjectLimits) -> SubjectLimits:
        """These where they are set, the others' where not."""
        return SubjectLimits(
            **{
                name: own if (own := getattr(self, name)) is not None else getattr(others, name)
                for name in SubjectLimits.__slots__
            }
        )


@dataclass(frozen=True, slots=True)
class Amount:
    """What a call may use at most, or did use."""

    tokens: int = 0
    cost_nano_usd: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """What was settled in a day and its month."""

    day_tokens: int
    day_nano_usd: int
    month_nano_usd: int


@dataclass(slots=True)
class Meter:
    """What has been used, and what is held. Microseconds since 1970 are its time.

    `day_…` was settled on `day`, `month_…` in the month beginning on `month`: the last ones in which any call ended.
    """

    requests: Rate = field(default_factory=Rate)
    tokens: Rate = field(default_factory=Rate)
    in_flight: int = 0
    held_tokens: int = 0
    held_nano_usd: int = 0
    day: date = date.min
    day_tokens: int = 0
    day_nano_usd: int = 0
    month: date = date.min
    month_nano_usd: int = 0

    def copy(self) -> Meter:
        """One that changes by itself."""
        return replace(self, requests=replace(self.requests), tokens=replace(self.tokens))

    def catch_up(self, now_us: int, limits: SubjectLimits) -> None:
        """The rates are as they are at `now_us` under these limits."""
        self.requests.catch_up(now_us * MICROSECOND_NS, limits.requests_per_minute)
        self.tokens.catch_up(now_us * MICROSECOND_NS, limits.tokens_per_minute)

    def used(self, now_us: int) -> Used:
        """Of this day and month; where the clock has gone back over midnight, of the later ones."""
        day, month = _day_and_month(now_us)
        is_today, is_this_month = day <= self.day, month <= self.month
        return Used(
            self.day_tokens if is_today else 0,
            self.day_nano_usd if is_today else 0,
            self.month_nano_usd if is_this_month else 0,
        )

    def waits_ms(self, now_us: int, limits: SubjectLimits, asked: Amount) -> dict[LimitName, int | None]:
        """How long a call waits for each limit, for a meter that has caught up: 0, it fits; None, it never will."""
        now_ns = now_us * MICROSECOND_NS
        return {
            "requests_per_minute": self.requests.wait_ms(now_ns, 1),
            "tokens_per_minute": self.tokens.wait_ms(now_ns, asked.tokens),
            "calls_in_flight": _slot_wait_ms(limits.calls_in_flight, self.in_flight),
            **self.more_waits_ms(now_us, limits, Amount(), asked),
        }

    def more_waits_ms(
        self, now_us: int, limits: SubjectLimits, held: Amount, asked: Amount
    ) -> dict[LimitName, int | None]:
        """The same for a call that holds `held` of this meter and asks for `asked` instead."""
        tokens, money = self.held_tokens - held.tokens, self.held_nano_usd - held.cost_nano_usd
        day_ms, month_ms = _resets_ms(now_us)
        used = self.used(now_us)
        waits: dict[LimitName, int | None] = {}
        if asked.tokens > held.tokens:
            waits["tokens_per_minute"] = self.tokens.wait_ms(now_us * MICROSECOND_NS, asked.tokens, held.tokens)
            waits["tokens_per_day"] = _wait_ms(limits.tokens_per_day, used.day_tokens, tokens, asked.tokens, day_ms)
        if asked.cost_nano_usd > held.cost_nano_usd:
            cost = asked.cost_nano_usd
            waits["nano_usd_per_day"] = _wait_ms(limits.nano_usd_per_day, used.day_nano_usd, money, cost, day_ms)
            waits["nano_usd_per_month"] = _wait_ms(
                limits.nano_usd_per_month, used.month_nano_usd, money, cost, month_ms
            )
        return waits

    def hold(self, asked: Amount) -> int:
        """The call is charged; returns where its stretch of the token rate ends."""
        self.requests.charge(1)
        self.in_flight += 1
        self.held_tokens += asked.tokens
        self.held_nano_usd += asked.cost_nano_usd
        return self.tokens.charge(asked.tokens)

    def rehold(self, now_us: int, held: Amount, asked: Amount, end_ns: int) -> None:
        """What is held is `asked` instead of `held`. The end of its stretch of the token rate stays where it was."""
        self.held_tokens += asked.tokens - held.tokens
        self.held_nano_usd += asked.cost_nano_usd - held.cost_nano_usd
        if asked.tokens > held.tokens:
            self.tokens.charge(asked.tokens - held.tokens)
        elif self.tokens.in_force:
            self.tokens.give_back(now_us * MICROSECOND_NS, held.tokens - asked.tokens, end_ns)

    def finish(self, now_us: int, held: Amount, used: Amount, end_ns: int) -> None:
        """The call has ended, and `used` counts where `held` did; more than that is debt."""
        before = self.used(now_us)
        day, month = _day_and_month(now_us)
        self.day, self.month = max(self.day, day), max(self.month, month)
        self.day_tokens = before.day_tokens + used.tokens
        self.day_nano_usd = before.day_nano_usd + used.cost_nano_usd
        self.month_nano_usd = before.month_nano_usd + used.cost_nano_usd
        self.in_flight -= 1
        self.held_tokens -= held.tokens
        self.held_nano_usd -= held.cost_nano_usd
        now_ns, over = now_us * MICROSECOND_NS, used.tokens - held.tokens
        if over > 0:
            self.tokens.owe(now_ns, over)
        else:
            self.tokens.give_back(now_ns, -over, end_ns)

    def state(self, now_us: int, limits: SubjectLimits, name: LimitName) -> LimitState | None:
        """How the limit stands, for a meter that has caught up; None without that limit."""
        limit: int | None = getattr(limits, name)
        if limit is None:
            return None
        if name in {"requests_per_minute", "tokens_per_minute"}:
            rate = self.requests if name == "requests_per_minute" else self.tokens
            now_ns = now_us * MICROSECOND_NS
            return LimitState(limit, rate.remaining(now_ns), rate.reset_ms(now_ns) / 1000)
        day_ms, month_ms = _resets_ms(now_us)
        used = self.used(now_us)
        taken, reset_ms = {
            "calls_in_flight": (self.in_flight, 0),
            "tokens_per_day": (used.day_tokens + self.held_tokens, day_ms),
            "nano_usd_per_day": (used.day_nano_usd + self.held_nano_usd, day_ms),
            "nano_usd_per_month": (used.month_nano_usd + self.held_nano_usd, month_ms),
        }[name]
        return LimitState(limit, max(0, limit - taken), reset_ms / 1000)


def _resets_ms(now_us: int) -> tuple[int, int]:
    """Until the day is over, and until the month is."""
    day_us, month_us = _ends_us(now_us // DAY_US)
    return rounded_up(day_us - now_us, MILLISECOND_US), rounded_up(month_us - now_us, MILLISECOND_US)


def _slot_wait_ms(limit: int | None, in_flight: int) -> int | None:
    if limit == 0:
        return None
    return IN_A_SECOND_MS if limit is not None and in_flight >= limit else 0


def _wait_ms(limit: int | None, used: int, held: int, asked: int, reset_ms: int) -> int | None:
    if limit is None or used + held + asked <= limit:
        return 0
    if asked > limit:
        return None
    return IN_A_SECOND_MS if used + asked <= limit else reset_ms


def _day_and_month(now_us: int) -> tuple[date, date]:
    return _dates_of_day(now_us // DAY_US)


@lru_cache(maxsize=64)
def _dates_of_day(days_since_1970: int) -> tuple[date, date]:
    day = (_EPOCH + timedelta(days=days_since_1970)).date()
    return day, day.replace(day=1)


@lru_cache(maxsize=64)
def _ends_us(days_since_1970: int) -> tuple[int, int]:
    first = _dates_of_day(days_since_1970)[1]
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return (days_since_1970 + 1) * DAY_US, (following - _EPOCH.date()).days * DAY_US
