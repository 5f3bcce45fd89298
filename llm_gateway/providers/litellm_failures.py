"""What litellm's exceptions mean. Of their texts only codes that we know are used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import aiohttp
import httpcore
import httpx
import orjson

from llm_gateway.providers.contract import FailureKind, ProviderFailure
from llm_gateway.providers.rejections import KNOWN_CODES, failure_from_answer

_CODES: Final = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_policy_violation",
    "UnsupportedParamsError": "unsupported_parameter",
}
# Not httpx.ConnectError: litellm's transport makes one of a connection that broke after the request was sent, too.
_NEVER_CONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpcore.ConnectError)
_TIMEOUTS: Final = frozenset({"Timeout", "APITimeoutError"})


def failure_of(error: Exception, body: dict[str, Any]) -> ProviderFailure:  # Any: JSON
    """The failure that litellm's exception is; it was asked with this body."""
    if isinstance(error, ProviderFailure):
        return error
    if any(isinstance(one, _NEVER_CONNECTED) for one in _causes(error)):
        return ProviderFailure(FailureKind.UNREACHABLE)
    name, status = type(error).__name__, _status(error)
    if status is None:
        return ProviderFailure(FailureKind.TIMED_OUT if name in _TIMEOUTS else FailureKind.LOST)
    code = _CODES.get(name, getattr(error, "code", None))
    raw = orjson.dumps({"error": {"code": code}}) if isinstance(code, str) and code in KNOWN_CODES else b""
    return failure_from_answer(status, _headers(error), raw, sent=body)


def is_throttling(error: Exception) -> bool:
    """True when what litellm raised within a stream stands for a 429."""
    first = getattr(error, "original_exception", None)
    return any(getattr(one, "status_code", None) == 429 for one in (error, first))


def _status(error: Exception) -> int | None:
    """The status that the provider answered with, or with which litellm refused the request before it was sent.

    litellm's own exceptions are no evidence of the first: it makes 500 of a lost connection and of Anthropic's 529.
    """
    for one in _causes(error):
        if isinstance(one, httpx.HTTPStatusError) or type(one).__module__.startswith("openai."):
            status = getattr(getattr(one, "response", None), "status_code", None)
            if isinstance(status, int):
                return status
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and 400 <= status < 500 and status != 408 else None


def _headers(error: Exception) -> dict[str, str]:
    """The headers of the provider's refusal, wherever along the way litellm has kept them."""
    for one in _causes(error):
        for kept in (getattr(one, "litellm_response_headers", None), getattr(one, "headers", None),
                     getattr(getattr(one, "response", None), "headers", None)):  # fmt: skip
            if kept:
                return {str(name).lower(): str(value) for name, value in kept.items()}
    return {}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and everything that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
