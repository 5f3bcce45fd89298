"""What the caller is told: which limit, for how long, how each limit stands, in whole sentences."""

from __future__ import annotations

from uuid import UUID

import pytest

from llm_gateway.limits.ledger import (
    CallTooLarge,
    DuplicateCall,
    HoldRequest,
    LimitExceeded,
    LimitState,
    UnknownCaller,
    Usage,
)
from llm_gateway.limits.rules import hold_from_answer

REQUEST = HoldRequest("req_1", UUID(int=1), None, "m", tokens=900, cost_nano_usd=1_500_000)
ANSWER: dict[str, object] = {
    "verdict": "held",
    "limit_name": None,
    "retry_after_ms": 0,
    "requests_limit": 60,
    "requests_remaining": 59,
    "requests_reset_ms": 1000,
    "tokens_limit": 6000,
    "tokens_remaining": 100,
    "tokens_reset_ms": 8750,
    "in_flight_limit": 10,
    "in_flight_remaining": 9,
    "month_limit": 5_000_000_000,
    "month_remaining": 1_000_000,
    "month_reset_ms": 7_200_000,
}


def refused(limit_name: str, retry_after_ms: int = 1500, **columns: object) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as refusal:
        hold_from_answer(
            REQUEST,
            {**ANSWER, "verdict": "refused", "limit_name": limit_name, "retry_after_ms": retry_after_ms, **columns},
        )
    return refusal.value


def too_large(limit_name: str, **columns: object) -> CallTooLarge:
    with pytest.raises(CallTooLarge) as refusal:
        hold_from_answer(REQUEST, {**ANSWER, "verdict": "too_large", "limit_name": limit_name, **columns})
    return refusal.value


def test_a_hold_says_how_each_limit_stands() -> None:
    hold = hold_from_answer(REQUEST, ANSWER)
    assert hold.request_id == "req_1"
    assert hold.requests == LimitState(60, 59, 1.0)
    assert hold.tokens == LimitState(6000, 100, 8.75)
    assert hold.in_flight == LimitState(10, 9, 0.0)
    assert hold.month_nano_usd == LimitState(5_000_000_000, 1_000_000, 7200.0)


@pytest.mark.parametrize(
    ("limit_name", "sentence"),
    [
        ("requests_per_minute", "You have 60 requests a minute, and they are used. Retry in 1.500 s."),
        (
            "tokens_per_minute",
            "This call may use up to 900 tokens, and 100 of your 6000 a minute are left. Retry in 1.500 s.",
        ),
        ("calls_in_flight", "You have 10 calls at a time, and all of them are running. Retry when one has ended."),
        (
            "nano_usd_per_month",
            "This call may cost up to $0.0015, and $0.001 of your $5 a month are neither spent nor held for running "
            "calls. Retry when one has ended.",
        ),
    ],
)
def test_a_refusal_names_the_limit_and_the_time(limit_name: str, sentence: str) -> None:
    error = refused(limit_name)
    assert (error.status, error.limit_name, error.retry_after_s) == (429, limit_name, 1.5)
    assert error.message == sentence
    assert error.states.tokens.remaining == 100
    assert error.details == {"limit": limit_name}


def test_rates_and_budgets_have_codes_of_their_own() -> None:
    assert refused("tokens_per_minute").code == "rate_limit_exceeded"
    assert refused("nano_usd_per_month").code == "budget_exceeded"


def test_money_that_is_spent_comes_back_with_the_month() -> None:
    error = refused("nano_usd_per_month", retry_after_ms=7_200_000)
    assert error.message.endswith("are left. The next month begins in 2.0 hours (UTC).")
    assert error.retry_after_s == 7200


@pytest.mark.parametrize(
    ("limit_name", "columns", "sentence"),
    [
        (
            "tokens_per_minute",
            {"tokens_limit": 800},
            "This call may use up to 900 tokens, and you have 800 a minute, so it would never fit. "
            "Shorten the prompt or ask for less output (`max_tokens`).",
        ),
        (
            "nano_usd_per_month",
            {"month_limit": 1_000_000},
            "This call may cost up to $0.0015, and you have $0.001 a month, so it would never fit. Shorten the prompt, "
            "ask for less output (`max_tokens`), or use a cheaper model.",
        ),
        ("nano_usd_per_month", {"month_limit": 0}, "Your plan allows no calls that cost money."),
        ("requests_per_minute", {"requests_limit": 0}, "Your plan allows no calls."),
        ("calls_in_flight", {"in_flight_limit": 0}, "Your plan allows no calls in flight."),
    ],
)
def test_what_never_fits_has_no_time_to_come_back(limit_name: str, columns: dict[str, object], sentence: str) -> None:
    error = too_large(limit_name, **columns)
    assert (error.status, error.code, error.retry_after_s) == (400, "call_exceeds_limit", None)
    assert (error.limit_name, error.message) == (limit_name, sentence)


def test_a_second_call_with_the_same_id_is_a_conflict() -> None:
    with pytest.raises(DuplicateCall) as refusal:
        hold_from_answer(REQUEST, {**ANSWER, "verdict": "duplicate"})
    assert refusal.value.status == 409


def test_a_user_who_is_gone_is_not_authenticated() -> None:
    with pytest.raises(UnknownCaller) as refusal:
        hold_from_answer(REQUEST, {"verdict": "unknown_user"})
    assert (refusal.value.status, refusal.value.code) == (401, "user_not_found")


def test_every_class_of_tokens_counts_against_the_rate() -> None:
    assert Usage(input_tokens=1, cached_input_tokens=20, output_tokens=300, cost_nano_usd=0).tokens == 321
