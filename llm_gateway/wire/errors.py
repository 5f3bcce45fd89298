"""What the gateway's own errors and a provider's failures mean to a client, whatever format it speaks.

How they are written is the dialect's business: openai_dialect.py, anthropic_dialect.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from core.errors import (
    BadGateway,
    ButtressError,
    GatewayTimeout,
    InvalidInput,
    TooLarge,
    TooManyRequests,
    Unavailable,
    Unprocessable,
)
from llm_gateway.limits.ledger import BUDGETS, CallTooLarge, LimitExceeded, LimitState
from llm_gateway.providers.contract import FailureKind, ProviderFailure
from llm_gateway.wire.headers import RawHeaders

LimitHeaders = Callable[[LimitState | None, LimitState | None], RawHeaders]

_DO_NOT_RETRY: Final = (b"x-should-retry", b"false")  # the official SDKs obey it

_SENTENCES: Final[Mapping[FailureKind, tuple[type[ButtressError], str, str]]] = {
    FailureKind.UNREACHABLE: (
        BadGateway,
        "provider_unreachable",
        "The model's provider cannot be reached. Nothing was charged. Retry later.",
    ),
    FailureKind.RATE_LIMITED: (
        TooManyRequests,
        "provider_rate_limited",
        "The model's provider limits this gateway right now; it is not your own limit. Nothing was charged.",
    ),
    FailureKind.OVERLOADED: (
        Unavailable,
        "provider_overloaded",
        "The model's provider is overloaded. Nothing was charged. Retry shortly.",
    ),
    FailureKind.BROKEN: (
        BadGateway,
        "provider_error",
        "The model's provider failed. Nothing was charged. Retry later.",
    ),
    FailureKind.UNTRANSLATABLE: (
        InvalidInput,
        "untranslatable_request",
        "This request cannot be translated for the model's provider. Nothing was charged. Simplify it, or use a model "
        "that answers this format itself.",
    ),
    FailureKind.CREDENTIAL: (
        BadGateway,
        "provider_refused_gateway",
        "The model's provider does not accept this gateway. Only its operator can change that.",
    ),
    FailureKind.MODEL_MISSING: (
        BadGateway,
        "provider_model_missing",
        "The model's provider does not know this model. Only the operator of this gateway can change that.",
    ),
    FailureKind.LOST: (
        BadGateway,
        "provider_connection_lost",
        "The connection to the model's provider broke. It may have done the work, so an estimate was charged.",
    ),
    FailureKind.TIMED_OUT: (
        GatewayTimeout,
        "provider_timeout",
        "The model's provider did not answer in time. It may have done the work, so an estimate was charged.",
    ),
    FailureKind.UNUSABLE: (
        BadGateway,
        "provider_answer_unusable",
        "The model's provider sent an answer that cannot be read. It did the work, so an estimate was charged.",
    ),
}
_PROVIDER_CANNOT_HELP: Final = frozenset({"provider_refused_gateway", "provider_model_missing"})
_CHARGED: Final = frozenset(
    {
        "answer_withheld",
        "hold_lost",
        "provider_answer_unusable",
        "provider_connection_lost",
        "provider_timeout",
    }
)


class ShuttingDown(Unavailable):
    """This process is about to stop and takes no new calls; another one does."""

    default_code = "shutting_down"
    default_message = "This gateway is restarting. Retry."


def error_of_failure(failure: ProviderFailure) -> ButtressError:
    """What the client is told about a provider's failure: never in the provider's own words."""
    if failure.kind is FailureKind.REJECTED:
        return _rejection(failure)
    kind, code, message = _SENTENCES[failure.kind]
    return kind(message, code=code, retry_after_s=failure.retry_after_s or (1.0 if kind is Unavailable else None))


def _rejection(failure: ProviderFailure) -> ButtressError:
    kind = {413: TooLarge, 422: Unprocessable}.get(failure.status or 400, InvalidInput)
    reason = failure.code.replace("_", " ") if failure.code else "no reason that can be shown"
    return kind(
        f"The model's provider rejected the request ({reason}). Nothing was charged.",
        code=failure.code or "invalid_request",
        details={"param": failure.param},
    )


def refusal_headers(error: ButtressError, limit_headers: LimitHeaders) -> RawHeaders:
    """The headers of an answer that is this error: its own, how its limits stand, and whether a retry may help."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
    if isinstance(error, LimitExceeded | CallTooLarge):
        headers += limit_headers(error.requests, error.tokens)
    if not retry_may_help(error):
        headers.append(_DO_NOT_RETRY)
    return headers


def retry_may_help(error: ButtressError) -> bool:
    """Whether the same request may succeed a little later, and would not be paid twice."""
    if isinstance(error, LimitExceeded):
        return not is_budget(error)
    return error.code not in _PROVIDER_CANNOT_HELP | _CHARGED and (error.status >= 500 or error.status == 429)


def is_budget(error: LimitExceeded) -> bool:
    """Whether a budget is spent (of a day or month), rather than a rate that is there again in a minute."""
    return error.limit_name in BUDGETS
