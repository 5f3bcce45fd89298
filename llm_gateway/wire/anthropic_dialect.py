"""Errors and limits in Anthropic's exact words, so that its official SDKs raise their own right exceptions.

Source: Anthropic API reference, "Errors" (`{"type": "error", "error": {"type", "message"}, "request_id"}`) and "Rate
limits", section "Response headers": resets are points in time (RFC 3339), `retry-after` is seconds.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import orjson

from llm_gateway.wire.errors import refusal_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.errors import ButtressError
    from llm_gateway.limits.ledger import LimitState
    from llm_gateway.wire.headers import RawHeaders

_TYPE_OF_STATUS: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class AnthropicDialect:
    """See Dialect. Anthropic's answers name the request in `request-id`, its errors in the body as well."""

    def error_body(self, error: ButtressError, request_id: str) -> bytes:
        kind = _TYPE_OF_STATUS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        param = (error.details or {}).get("param")
        # Anthropic has no field for the one to blame: its own sentences begin with its name.
        message = error.message if param is None else f"{param}: {error.message}"
        body = {"type": kind, "message": message, "details": {"error_code": error.code}}
        return orjson.dumps({"type": "error", "error": body, "request_id": request_id}, default=str)

    def error_headers(self, error: ButtressError) -> RawHeaders:
        return refusal_headers(error, self.limit_headers)

    def limit_headers(self, requests: LimitState | None, tokens: LimitState | None) -> RawHeaders:
        now_s = time.time()
        return [*_one_limit(b"requests", requests, now_s), *_one_limit(b"tokens", tokens, now_s)]

    def id_headers(self, request_id: str) -> RawHeaders:
        return [(b"request-id", request_id.encode())]


ANTHROPIC: Final = AnthropicDialect()


def _one_limit(what: bytes, state: LimitState | None, now_s: float) -> RawHeaders:
    if state is None:
        return []
    return [
        (b"anthropic-ratelimit-" + what + b"-limit", b"%d" % state.limit),
        (b"anthropic-ratelimit-" + what + b"-remaining", b"%d" % max(0, state.remaining)),
        (b"anthropic-ratelimit-" + what + b"-reset", _moment(now_s + state.reset_s).encode()),
    ]


def _moment(unix_s: float) -> str:
    """RFC 3339 in UTC, whole seconds, never too early."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(unix_s)))
