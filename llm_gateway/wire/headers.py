"""Rate limit headers in OpenAI's words.

Source: OpenAI, "Rate limits", section "Rate limits in headers": resets are durations such as `1s`, `6m0s`, `12ms`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_gateway.limits.ledger import LimitState

RawHeaders = list[tuple[bytes, bytes]]

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def duration(seconds: float) -> str:
    """The duration as Go prints it and OpenAI sends it: `0s`, `12ms`, `1s`, `6m0s`, `2h0m5s`; never too short."""
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        milliseconds = math.ceil(seconds * 1000)
        return "1s" if milliseconds == 1000 else f"{milliseconds}ms"
    whole_s = math.ceil(seconds)
    hours, rest_s = divmod(whole_s, _HOUR_S)
    minutes, left_s = divmod(rest_s, _MINUTE_S)
    if hours:
        return f"{hours}h{minutes}m{left_s}s"
    return f"{minutes}m{left_s}s" if minutes else f"{left_s}s"


def limit_headers(requests: LimitState, tokens: LimitState) -> RawHeaders:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` for these two limits."""
    return [*_one_limit(b"requests", requests), *_one_limit(b"tokens", tokens)]


def _one_limit(what: bytes, state: LimitState) -> RawHeaders:
    return [
        (b"x-ratelimit-limit-" + what, b"%d" % state.limit),
        (b"x-ratelimit-remaining-" + what, b"%d" % max(0, state.remaining)),
        (b"x-ratelimit-reset-" + what, duration(state.reset_s).encode()),
    ]


def usd(nano_usd: int) -> bytes:
    """Nano-dollars as a decimal number of dollars, exact and without an exponent: `0.000150000`."""
    dollars, rest = divmod(nano_usd, 1_000_000_000)
    return b"%d.%09d" % (dollars, rest)
