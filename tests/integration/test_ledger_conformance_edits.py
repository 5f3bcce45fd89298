"""What every store promises when limits change, when a day or a month does, and when more was used than held."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Final
from uuid import uuid4

import pytest

from llm_gateway.limits.ledger import LimitName, LimitState, Scope
from llm_gateway.limits.meters import Amount, SubjectLimits
from tests.support.ledger_calls import AMOUNTS, BUDGETS, LIMIT_NAMES, RATES, SCOPES, Trio, limit, usage

SECOND_US: Final = 1_000_000
HOUR_US: Final = 3600 * SECOND_US
every_limit_of_every_scope = pytest.mark.parametrize(("scope", "name"), list(product(SCOPES, LIMIT_NAMES)))
every_budget_of_every_scope = pytest.mark.parametrize(("scope", "name"), list(product(SCOPES, BUDGETS)))


def microseconds(*moment: int) -> int:
    return round(datetime(*moment, tzinfo=UTC).timestamp()) * SECOND_US  # type: ignore[misc, arg-type]


@every_limit_of_every_scope
async def test_a_raised_limit_counts_at_once_and_forgets_nothing(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 8))
    await trio.use_up(name, 8)
    await trio.limit(scope, limit(name, 20))
    await trio.use_up(name, 12)
    assert (await trio.ask(name, 1)).verdict == "refused"


@every_limit_of_every_scope
async def test_a_lowered_limit_counts_at_once_and_forgets_nothing(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 20))
    await trio.use_up(name, 8)
    await trio.limit(scope, limit(name, 8))
    refused = await trio.ask(name, 1)
    assert (refused.verdict, refused.scope, refused.limit_name) == ("refused", scope, name)
    await trio.limit(scope, limit(name, 4))
    lowered = await trio.ask(name, 1)
    assert lowered.state is not None
    assert (lowered.state.limit, lowered.state.remaining) == (4, 0)
    if name in RATES:  # eight count as used of four: four to wait off, and one for the next to fit
        assert (lowered.retry_after_ms, lowered.state.reset_s) == (5 * 15_000, 120.0)


@every_limit_of_every_scope
async def test_a_limit_that_comes_later_knows_what_is_in_use(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.use_up(name, 5)
    await trio.limit(scope, limit(name, 6))
    if name in RATES:  # no rate was kept: it begins full
        await trio.use_up(name, 6)
    else:
        await trio.use_up(name, 1)
    assert (await trio.ask(name, 1)).verdict == "refused"


@every_limit_of_every_scope
async def test_a_limit_taken_away_is_in_nobodys_way(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 0))
    await trio.limit(scope, SubjectLimits())
    assert (await trio.ask(name, 10**6)).verdict == "held"


async def test_a_limit_taken_away_for_a_while_forgets_neither_rate_nor_budget(trio: Trio) -> None:
    limits = SubjectLimits(requests_per_minute=2, tokens_per_minute=1000, tokens_per_day=600, nano_usd_per_day=600)
    await trio.limit("key", limits)
    await trio.hold("before", tokens=300, cost_nano_usd=300)
    await trio.limit("key", SubjectLimits())
    free = await trio.hold(tokens=200, cost_nano_usd=200)
    assert (free.verdict, free.requests, free.tokens) == ("held", None, None)
    await trio.limit("key", limits)
    again = await trio.hold(tokens=100, cost_nano_usd=100)
    assert again.requests is not None
    assert again.tokens is not None
    assert (again.verdict, again.requests.remaining, again.tokens.remaining) == ("held", 0, 600)
    await trio.limit("key", limit("tokens_per_day", 600))
    assert (await trio.hold(tokens=1)).limit_name == "tokens_per_day"
    await trio.store.settle("before", usage())
    assert (await trio.hold(tokens=300)).verdict == "held"


async def test_tokens_held_under_another_limit_are_not_given_back_under_the_new_one(trio: Trio) -> None:
    await trio.limit("key", limit("tokens_per_minute", 1000))
    await trio.hold("old", tokens=1000)
    await trio.limit("key", limit("tokens_per_minute", 100_000))
    assert (await trio.hold(tokens=99_000)).verdict == "held"
    await trio.store.settle("old", usage())
    assert (await trio.hold(tokens=1)).verdict == "refused"


@pytest.mark.parametrize("scope", SCOPES)
async def test_limits_come_from_the_subject_then_its_plan_then_for_users_the_default_plan(
    trio: Trio, scope: Scope
) -> None:
    await trio.store.set_default_plan(SubjectLimits(requests_per_minute=11, tokens_per_minute=12))
    await trio.store.set_plan("plan-of-a-test", SubjectLimits(requests_per_minute=21, tokens_per_minute=22))
    plain = await trio.hold()
    assert plain.requests is not None
    assert plain.requests.limit == 11  # the user's
    await trio.limit("user", SubjectLimits(requests_per_minute=10**6, tokens_per_minute=10**6))
    await trio.limit(scope, SubjectLimits(tokens_per_minute=7), "plan-of-a-test")
    planned = await trio.hold()
    assert planned.requests is not None
    assert planned.tokens is not None
    assert (planned.requests.limit, planned.tokens.limit) == (21, 7)
    await trio.store.set_plan("plan-of-a-test", SubjectLimits(requests_per_minute=0))
    assert ((refused := await trio.hold()).scope, refused.verdict) == (scope, "too_large")


@every_budget_of_every_scope
async def test_debt_refuses_what_costs_and_nothing_else_until_the_period_is_over(
    trio: Trio, scope: Scope, name: LimitName
) -> None:
    trio.store.now_us = microseconds(2027, 2, 28, 23)
    await trio.limit(scope, limit(name, 1000))
    await trio.ask(name, 900, "a")
    await trio.store.settle("a", usage(1500, 1500))
    refused = await trio.ask(name, 1)
    assert (refused.verdict, refused.retry_after_ms) == ("refused", 3_600_000)
    assert refused.state == LimitState(1000, 0, 3600.0)
    assert (await trio.ask(name, 0)).verdict == "held"
    trio.store.now_us += HOUR_US
    assert (await trio.ask(name, 1000)).verdict == "held"


@pytest.mark.parametrize("scope", SCOPES)
async def test_tokens_beyond_the_hold_are_waited_for(trio: Trio, scope: Scope) -> None:
    await trio.limit(scope, limit("tokens_per_minute", 6000))
    await trio.hold("a", tokens=100)
    await trio.store.settle("a", usage(12_000))
    assert ((refused := await trio.hold()).verdict, refused.retry_after_ms) == ("refused", 60_000)
    assert (await trio.hold(tokens=6000)).retry_after_ms == 120_000


@every_budget_of_every_scope
async def test_a_call_across_midnight_is_paid_by_the_period_it_ends_in(
    trio: Trio, scope: Scope, name: LimitName
) -> None:
    trio.store.now_us = microseconds(2027, 12, 31, 23, 59, 59)
    await trio.limit(scope, limit(name, 1000))
    await trio.ask(name, 400, "done")
    await trio.store.settle("done", usage(400, 400))
    await trio.ask(name, 600, "across")
    assert (await trio.ask(name, 1)).verdict == "refused"
    trio.store.now_us += SECOND_US
    # what is held may be spent in the new period, which has that much less until it is settled
    assert (await trio.ask(name, 500)).retry_after_ms == 1000
    assert (await trio.ask(name, 400)).verdict == "held"
    await trio.store.settle("across", usage(50, 50))
    assert (await trio.ask(name, 551)).verdict == "refused"
    assert (await trio.ask(name, 550)).verdict == "held"


@pytest.mark.parametrize("name", BUDGETS)
async def test_a_new_day_is_no_new_month(trio: Trio, name: LimitName) -> None:
    await trio.limit("user", limit(name, 1000))
    await trio.ask(name, 1000, "a")
    await trio.store.settle("a", usage(1000, 1000))
    trio.store.now_us += 24 * HOUR_US
    assert (await trio.ask(name, 1)).verdict == ("refused" if name == "nano_usd_per_month" else "held")


@pytest.mark.parametrize("name", BUDGETS)
async def test_a_clock_that_steps_back_over_midnight_forgets_nothing(trio: Trio, name: LimitName) -> None:
    trio.store.now_us = midnight_us = microseconds(2028, 1, 1)
    await trio.limit("user", limit(name, 1000))
    await trio.ask(name, 1000, "a")
    await trio.store.settle("a", usage(1000, 1000))
    trio.store.now_us = midnight_us - SECOND_US
    assert (await trio.ask(name, 1)).verdict == "refused"
    trio.store.now_us = midnight_us
    assert (await trio.ask(name, 1)).verdict == "refused"


@pytest.mark.parametrize("name", AMOUNTS)
async def test_the_most_that_can_be_asked_is_counted_exactly(trio: Trio, name: LimitName) -> None:
    most = 10**9 if name.startswith("tokens") else 10**15
    await trio.limit("user", limit(name, most))
    await trio.ask(name, most - 1, "a")
    assert (await trio.ask(name, 2)).verdict == "refused"
    assert (await trio.ask(name, 1)).verdict == "held"


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("later", [0, 1])
async def test_the_largest_call_ends_under_the_smallest_limit(trio: Trio, scope: Scope, later: int) -> None:
    """A billion tokens are sixty thousand million seconds of a limit of one a minute: more than a clock has."""
    await trio.limit(scope, limit("tokens_per_minute", 10**9))
    for name in ("settled", "repriced"):
        await trio.hold(name, tokens=10**9)
        trio.store.now_us += 60 * SECOND_US
    await trio.limit(scope, limit("tokens_per_minute", later))
    await trio.hold()
    assert (await trio.store.reprice("repriced", Amount(1, 0))).verdict == "held"
    assert await trio.store.settle("settled", usage(1)) == "settled"
    together = [(trio.call(tokens=10**9), uuid4()), (trio.call(tokens=10**9), uuid4())]
    await trio.limit(scope, SubjectLimits(calls_in_flight=3))
    answers = await trio.store.post([], together)
    assert [answer if isinstance(answer, str) else answer.verdict for answer in answers] == ["held", "refused"]
