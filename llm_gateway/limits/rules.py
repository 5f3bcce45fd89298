"""From a store's verdict on a hold to what the caller is told. Pure, and the same for every store.

The arithmetic of the limits themselves is where their state is: in migrations/*_gateway_admit.sql, under the lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from core.errors import ButtressError
from llm_gateway.limits.ledger import (
    BUDGETS,
    CallTooLarge,
    DuplicateCall,
    Hold,
    HoldLost,
    LimitExceeded,
    LimitName,
    LimitState,
    NotEnforced,
    Scope,
    UnknownCaller,
)

NANO_PER_USD: Final = 10**9
Verdict = Literal["held", "refused", "too_large", "duplicate", "unknown_user", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a store decided about a hold. `state` is how the limit in the way (`scope`, `limit_name`) stands."""

    verdict: Verdict
    scope: Scope = "user"
    limit_name: LimitName = "requests_per_minute"
    retry_after_ms: int = 0
    state: LimitState | None = None
    requests: LimitState | None = None
    tokens: LimitState | None = None


def hold_from_answer(request_id: str, tokens: int, cost_nano_usd: int, answer: Answer) -> Hold:
    """The hold of so much, where the answer says so.

    Raises: what the verdict says instead: LimitExceeded, CallTooLarge, DuplicateCall, UnknownCaller, HoldLost.
    """
    if answer.verdict == "held":
        return Hold(request_id, answer.requests, answer.tokens)
    if answer.verdict == "unknown_user":
        raise UnknownCaller
    if answer.verdict == "duplicate":
        raise DuplicateCall
    if answer.state is None:
        raise HoldLost
    asked = _asked(answer.limit_name, tokens, cost_nano_usd)
    if answer.verdict == "too_large":
        raise CallTooLarge(
            _never_fits(answer.scope, answer.limit_name, asked, answer.state),
            scope=answer.scope,
            limit_name=answer.limit_name,
            state=answer.state,
            requests=answer.requests,
            tokens=answer.tokens,
        )
    retry_after_s = answer.retry_after_ms / 1000
    raise LimitExceeded(
        _fits_later(answer.scope, answer.limit_name, asked, answer.state, retry_after_s),
        scope=answer.scope,
        limit_name=answer.limit_name,
        retry_after_s=retry_after_s,
        state=answer.state,
        requests=answer.requests,
        tokens=answer.tokens,
    )


def require_rehearsed(answers: Sequence[Answer]) -> None:
    """Each limit of the key has forbidden its call, in the order of LimitName, and whoever asked was told so.

    Raises: NotEnforced.
    """
    refused = [_refused_by(answer) for answer in answers]
    if refused != [("key", limit_name) for limit_name in get_args(LimitName)]:
        raise NotEnforced


def _refused_by(answer: Answer) -> tuple[Scope, LimitName] | None:
    try:
        hold_from_answer("rehearsal", 2, 2, answer)
    except CallTooLarge as refusal:
        return refusal.scope, refusal.limit_name
    except ButtressError:
        return None
    return None


_HAS: Final[Mapping[Scope, str]] = {
    "user": "You have",
    "key": "This API key has",
    "workspace": "This workspace has",
}
_WHOSE: Final[Mapping[Scope, str]] = {"user": "your", "key": "this API key's", "workspace": "this workspace's"}
_WHO_ALLOWS: Final[Mapping[Scope, str]] = {
    "user": "Your plan",
    "key": "This API key",
    "workspace": "This workspace",
}
_NOTHING_OF: Final[Mapping[LimitName, str]] = {
    "requests_per_minute": "calls",
    "tokens_per_minute": "calls that use tokens",
    "calls_in_flight": "calls in flight",
    "tokens_per_day": "calls that use tokens",
    "nano_usd_per_day": "calls that cost money",
    "nano_usd_per_month": "calls that cost money",
}
_PERIOD: Final[Mapping[LimitName, str]] = {
    "tokens_per_minute": "minute",
    "tokens_per_day": "day",
    "nano_usd_per_day": "day",
    "nano_usd_per_month": "month",
}


def _asked(limit_name: LimitName, tokens: int, cost_nano_usd: int) -> str:
    if _is_money(limit_name):
        return f"This call may cost up to {_usd(cost_nano_usd)}"
    return f"This call may use up to {tokens} tokens"


def _never_fits(scope: Scope, limit_name: LimitName, asked: str, state: LimitState) -> str:
    if state.limit == 0 or limit_name not in _PERIOD:
        return f"{_WHO_ALLOWS[scope]} allows no {_NOTHING_OF[limit_name]}."
    has = _HAS[scope][:1].lower() + _HAS[scope][1:]
    remedy = (
        "Shorten the prompt, ask for less output (`max_tokens`), or use a cheaper model."
        if _is_money(limit_name)
        else "Shorten the prompt or ask for less output (`max_tokens`)."
    )
    amount = _amount(limit_name, state.limit)
    return f"{asked}, and {has} {amount} a {_PERIOD[limit_name]}, so it would never fit. {remedy}"


def _fits_later(scope: Scope, limit_name: LimitName, asked: str, state: LimitState, retry_after_s: float) -> str:
    if limit_name == "requests_per_minute":
        return f"{_HAS[scope]} {state.limit} requests a minute, and they are used. Retry in {retry_after_s:.3f} s."
    if limit_name == "calls_in_flight":
        return f"{_HAS[scope]} {state.limit} calls at a time, and all of them are running. Retry when one has ended."
    period = _PERIOD[limit_name]
    left = (
        f"{asked}, and {_amount(limit_name, state.remaining)} of {_WHOSE[scope]} {_amount(limit_name, state.limit)} "
        f"a {period} are"
    )
    if limit_name not in BUDGETS:
        return f"{left} left. Retry in {retry_after_s:.3f} s."
    if retry_after_s < state.reset_s:
        return f"{left} neither used nor held for running calls. Retry when one has ended."
    return f"{left} left. The next {period} begins in {retry_after_s / 3600:.1f} hours (UTC)."


def _is_money(limit_name: LimitName) -> bool:
    return limit_name.startswith("nano_usd")


def _amount(limit_name: LimitName, amount: int) -> str:
    return _usd(amount) if _is_money(limit_name) else str(amount)


def _usd(nano_usd: int) -> str:
    """Exactly, without needless zeros: `$5`, `$0.000001234`."""
    whole, nano = divmod(nano_usd, NANO_PER_USD)
    fraction = f"{nano:09d}".rstrip("0")
    return f"${whole}.{fraction}" if fraction else f"${whole}"
