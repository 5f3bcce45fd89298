"""What the caller is told: which limit of whom, for how long, how it stands, in whole sentences."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from core.errors import ButtressError
from llm_gateway.limits.ledger import (
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
from llm_gateway.limits.rules import Answer, Verdict, hold_from_answer, require_rehearsed

REQUESTS, TOKENS = LimitState(60, 59, 1.0), LimitState(6000, 100, 8.75)
TWO_HOURS_S = 7200.0


def told(answer: Answer) -> Hold:
    return hold_from_answer("req_1", 900, 1_500_000, answer)


def refused(
    limit_name: LimitName, state: LimitState, *, scope: Scope = "user", retry_after_ms: int = 1500
) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as refusal:
        told(
            Answer(
                verdict="refused",
                scope=scope,
                limit_name=limit_name,
                retry_after_ms=retry_after_ms,
                state=state,
                requests=REQUESTS,
                tokens=TOKENS,
            )
        )
    return refusal.value


def too_large(limit_name: LimitName, limit: int, *, scope: Scope = "user") -> CallTooLarge:
    with pytest.raises(CallTooLarge) as refusal:
        told(Answer(verdict="too_large", scope=scope, limit_name=limit_name, state=LimitState(limit, limit, 0)))
    return refusal.value


def test_a_hold_says_how_the_rates_stand() -> None:
    assert told(Answer(verdict="held", requests=REQUESTS, tokens=TOKENS)) == Hold("req_1", REQUESTS, TOKENS)
    assert told(Answer(verdict="held")) == Hold("req_1", None, None)


@pytest.mark.parametrize(
    ("scope", "limit_name", "state", "sentence"),
    [
        (
            "user",
            "requests_per_minute",
            LimitState(60, 0, 60),
            "You have 60 requests a minute, and they are used. Retry in 1.500 s.",
        ),
        (
            "key",
            "requests_per_minute",
            LimitState(60, 0, 60),
            "This API key has 60 requests a minute, and they are used. Retry in 1.500 s.",
        ),
        (
            "user",
            "tokens_per_minute",
            TOKENS,
            "This call may use up to 900 tokens, and 100 of your 6000 a minute are left. Retry in 1.500 s.",
        ),
        (
            "workspace",
            "calls_in_flight",
            LimitState(10, 0, 0),
            "This workspace has 10 calls at a time, and all of them are running. Retry when one has ended.",
        ),
        (
            "key",
            "tokens_per_day",
            LimitState(1000, 100, TWO_HOURS_S),
            "This call may use up to 900 tokens, and 100 of this API key's 1000 a day are neither used nor held for "
            "running calls. Retry when one has ended.",
        ),
        (
            "user",
            "nano_usd_per_month",
            LimitState(5_000_000_000, 1_000_000, TWO_HOURS_S),
            "This call may cost up to $0.0015, and $0.001 of your $5 a month are neither used nor held for running "
            "calls. Retry when one has ended.",
        ),
    ],
)
def test_a_refusal_names_the_limit_whose_it_is_and_the_time(
    scope: Scope, limit_name: LimitName, state: LimitState, sentence: str
) -> None:
    error = refused(limit_name, state, scope=scope)
    assert (error.status, error.scope, error.limit_name, error.retry_after_s) == (429, scope, limit_name, 1.5)
    assert error.message == sentence
    assert (error.state, error.requests, error.tokens) == (state, REQUESTS, TOKENS)
    assert error.details == {"limit": limit_name, "scope": scope}


def test_rates_and_budgets_have_codes_of_their_own() -> None:
    assert refused("tokens_per_minute", TOKENS).code == "rate_limit_exceeded"
    assert refused("tokens_per_day", TOKENS).code == "budget_exceeded"
    assert refused("nano_usd_per_month", TOKENS).code == "budget_exceeded"


@pytest.mark.parametrize(("limit_name", "period"), [("nano_usd_per_day", "day"), ("nano_usd_per_month", "month")])
def test_money_that_is_spent_comes_back_with_the_day_or_the_month(limit_name: LimitName, period: str) -> None:
    error = refused(limit_name, LimitState(5_000_000_000, 0, TWO_HOURS_S), retry_after_ms=7_200_000)
    assert error.message.endswith(f"are left. The next {period} begins in 2.0 hours (UTC).")
    assert error.retry_after_s == TWO_HOURS_S


@pytest.mark.parametrize(
    ("scope", "limit_name", "limit", "sentence"),
    [
        (
            "user",
            "tokens_per_minute",
            800,
            "This call may use up to 900 tokens, and you have 800 a minute, so it would never fit. "
            "Shorten the prompt or ask for less output (`max_tokens`).",
        ),
        (
            "key",
            "nano_usd_per_month",
            1_000_000,
            "This call may cost up to $0.0015, and this API key has $0.001 a month, so it would never fit. Shorten the "
            "prompt, ask for less output (`max_tokens`), or use a cheaper model.",
        ),
        ("user", "nano_usd_per_day", 0, "Your plan allows no calls that cost money."),
        ("user", "tokens_per_day", 0, "Your plan allows no calls that use tokens."),
        ("user", "requests_per_minute", 0, "Your plan allows no calls."),
        ("workspace", "calls_in_flight", 0, "This workspace allows no calls in flight."),
    ],
)
def test_what_never_fits_has_no_time_to_come_back(
    scope: Scope, limit_name: LimitName, limit: int, sentence: str
) -> None:
    error = too_large(limit_name, limit, scope=scope)
    assert (error.status, error.code, error.retry_after_s) == (400, "call_exceeds_limit", None)
    assert (error.scope, error.limit_name, error.message) == (scope, limit_name, sentence)


@pytest.mark.parametrize(
    ("verdict", "kind", "status", "code"),
    [
        ("duplicate", DuplicateCall, 409, "duplicate_request_id"),
        ("unknown_user", UnknownCaller, 401, "user_not_found"),
        ("lost", HoldLost, 500, "hold_lost"),
    ],
)
def test_other_verdicts_have_errors_of_their_own(
    verdict: Verdict, kind: type[ButtressError], status: int, code: str
) -> None:
    with pytest.raises(kind) as refusal:
        told(Answer(verdict=verdict))
    assert (refusal.value.status, refusal.value.code) == (status, code)


def test_a_rehearsal_must_have_been_refused_by_each_limit_in_turn() -> None:
    """LiteLLM#27381: a limiter that was made and never asked."""

    def refused_by(limit_name: LimitName) -> Answer:
        state = LimitState(1, 1, 0)
        return Answer(verdict="too_large", scope="key", limit_name=limit_name, state=state)

    answers = [refused_by(limit_name) for limit_name in get_args(LimitName)]
    require_rehearsed(answers)
    elsewhere = replace(answers[-1], scope="user")
    for wrong in ([], answers[:-1], [*answers, answers[0]], answers[::-1], [*answers[:-1], elsewhere]):
        with pytest.raises(NotEnforced):
            require_rehearsed(wrong)
    verdicts: tuple[Verdict, ...] = ("held", "duplicate", "unknown_user", "lost")
    for verdict in verdicts:
        with pytest.raises(NotEnforced):
            require_rehearsed([Answer(verdict=verdict), *answers[1:]])
