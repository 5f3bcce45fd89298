"""From the database's verdict on a hold to what the caller is told. Pure.

The arithmetic of the limits themselves is in migrations/*_gateway_hold.sql, where it is done under the lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from llm_gateway.limits.ledger import (
    CallTooLarge,
    DuplicateCall,
    Hold,
    HoldRequest,
    LimitExceeded,
    LimitName,
    Limits,
    LimitState,
    UnknownCaller,
)

NANO_PER_USD: Final = 10**9


def hold_from_answer(request: HoldRequest, answer: Mapping[str, object]) -> Hold:
    """The hold, where `answer` (gateway.hold_answer, a column each) says so.

    Raises: what the verdict says instead: LimitExceeded, CallTooLarge, DuplicateCall, UnknownCaller.
    """
    verdict = answer["verdict"]
    if verdict == "unknown_user":
        raise UnknownCaller
    if verdict == "duplicate":
        raise DuplicateCall
    states = _states(answer)
    if verdict == "held":
        return Hold(request.request_id, states)
    limit_name = cast("LimitName", answer["limit_name"])
    if verdict == "too_large":
        raise CallTooLarge(_never_fits(limit_name, request, states), limit_name=limit_name, states=states)
    retry_after_s = _number(answer, "retry_after_ms") / 1000
    raise LimitExceeded(
        _fits_later(limit_name, request, states, retry_after_s),
        limit_name=limit_name,
        retry_after_s=retry_after_s,
        states=states,
    )


def _states(answer: Mapping[str, object]) -> Limits:
    return Limits(
        requests=_state(answer, "requests"),
        tokens=_state(answer, "tokens"),
        in_flight=LimitState(_number(answer, "in_flight_limit"), _number(answer, "in_flight_remaining"), 0.0),
        month_nano_usd=_state(answer, "month"),
    )


def _state(answer: Mapping[str, object], name: str) -> LimitState:
    return LimitState(
        limit=_number(answer, f"{name}_limit"),
        remaining=_number(answer, f"{name}_remaining"),
        reset_s=_number(answer, f"{name}_reset_ms") / 1000,
    )


def _number(answer: Mapping[str, object], column: str) -> int:
    return cast("int", answer[column])


def _never_fits(limit_name: LimitName, request: HoldRequest, states: Limits) -> str:
    if limit_name == "tokens_per_minute":
        return (
            f"This call may use up to {request.tokens} tokens, and you have {states.tokens.limit} a minute, so it "
            "would never fit. Shorten the prompt or ask for less output (`max_tokens`)."
        )
    if limit_name == "nano_usd_per_month" and states.month_nano_usd.limit > 0:
        return (
            f"This call may cost up to {_usd(request.cost_nano_usd)}, and you have {_usd(states.month_nano_usd.limit)} "
            "a month, so it would never fit. Shorten the prompt, ask for less output (`max_tokens`), or use a cheaper "
            "model."
        )
    what = {
        "requests_per_minute": "calls",
        "calls_in_flight": "calls in flight",
        "nano_usd_per_month": "calls that cost money",
    }[limit_name]
    return f"Your plan allows no {what}."


def _fits_later(limit_name: LimitName, request: HoldRequest, states: Limits, retry_after_s: float) -> str:
    if limit_name == "requests_per_minute":
        return f"You have {states.requests.limit} requests a minute, and they are used. Retry in {retry_after_s:.3f} s."
    if limit_name == "tokens_per_minute":
        return (
            f"This call may use up to {request.tokens} tokens, and {states.tokens.remaining} of your "
            f"{states.tokens.limit} a minute are left. Retry in {retry_after_s:.3f} s."
        )
    if limit_name == "calls_in_flight":
        return (
            f"You have {states.in_flight.limit} calls at a time, and all of them are running. Retry when one has ended."
        )
    month = states.month_nano_usd
    if retry_after_s < month.reset_s:
        return (
            f"This call may cost up to {_usd(request.cost_nano_usd)}, and {_usd(month.remaining)} of your "
            f"{_usd(month.limit)} a month are neither spent nor held for running calls. Retry when one has ended."
        )
    return (
        f"This call may cost up to {_usd(request.cost_nano_usd)}, and {_usd(month.remaining)} of your "
        f"{_usd(month.limit)} a month are left. The next month begins in {retry_after_s / 3600:.1f} hours (UTC)."
    )


def _usd(nano_usd: int) -> str:
    """Exactly, without needless zeros: `$5`, `$0.000001234`."""
    whole, nano = divmod(nano_usd, NANO_PER_USD)
    fraction = f"{nano:09d}".rstrip("0")
    return f"${whole}.{fraction}" if fraction else f"${whole}"
