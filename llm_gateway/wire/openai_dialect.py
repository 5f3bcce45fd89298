"""Errors and limits in OpenAI's exact words, so that its official SDKs raise their own right exceptions.

Source: OpenAI's OpenAPI description: `{"error": {"message", "type", "param", "code"}}`, all four required; its guide
"Rate limits", section "Rate limits in headers": resets are durations such as `1s`, `6m0s`, `12ms`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import orjson

from llm_gateway.limits.ledger import LimitExceeded
from llm_gateway.wire.errors import is_budget, refusal_headers

if TYPE_CHECKING:
    from core.errors import ButtressError
    from llm_gateway.limits.ledger import LimitState
    from llm_gateway.wire.headers import RawHeaders

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def error_object(error: ButtressError) -> dict[str, object]:
    """The value of `error` in OpenAI's shape."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    code = error.code
    if isinstance(error, LimitExceeded):
        budget = is_budget(error)
        kind = "insufficient_quota" if budget else "tokens" if error.limit_name == "tokens_per_minute" else "requests"
        code = "insufficient_quota" if budget else "rate_limit_exceeded"
    elif error.status == 429:
        kind = "requests"
    return {"message": error.message, "type": kind, "param": (error.details or {}).get("param"), "code": code}


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


class OpenAIDialect:
    """See Dialect. OpenAI's answers name the request in `x-request-id`, as all of ours do."""

    def error_body(self, error: ButtressError, request_id: str) -> bytes:
        return orjson.dumps({"error": error_object(error)}, default=str)

    def error_headers(self, error: ButtressError) -> RawHeaders:
        return refusal_headers(error, self.limit_headers)

    def limit_headers(self, requests: LimitState | None, tokens: LimitState | None) -> RawHeaders:
        return [*_one_limit(b"requests", requests), *_one_limit(b"tokens", tokens)]

    def id_headers(self, request_id: str) -> RawHeaders:
        return []


OPENAI: Final = OpenAIDialect()


def _one_limit(what: bytes, state: LimitState | None) -> RawHeaders:
    if state is None:
        return []
    return [
        (b"x-ratelimit-limit-" + what, b"%d" % state.limit),
        (b"x-ratelimit-remaining-" + what, b"%d" % max(0, state.remaining)),
        (b"x-ratelimit-reset-" + what, duration(state.reset_s).encode()),
    ]
