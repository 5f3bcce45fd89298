"""What every store promises of every limit of every scope: who fits, who does not, why, and for how long.

Both stores, with a clock that the test moves; the words are those of ledger.py.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Final
from uuid import uuid4

import pytest

from llm_gateway.limits.ledger import LimitName, LimitState, Scope
from llm_gateway.limits.meters import Amount, SubjectLimits
from tests.support.ledger_calls import AMOUNTS, BUDGETS, LIMIT_NAMES, RATES, SCOPES, Trio, limit, usage
from tests.support.ledger_stores import figures

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
DAY_US: Final = 86_400 * SECOND_US
MORNING_MS: Final = 8 * 3_600_000  # the stores begin at 08:00 UTC of January the 15th
REST_OF_PERIOD_MS: Final[dict[LimitName, int]] = {
    "tokens_per_day": 86_400_000 - MORNING_MS,
    "nano_usd_per_day": 86_400_000 - MORNING_MS,
    "nano_usd_per_month": 17 * 86_400_000 - MORNING_MS,
}
every_limit_of_every_scope = pytest.mark.parametrize(("scope", "name"), list(product(SCOPES, LIMIT_NAMES)))
every_amount_of_every_scope = pytest.mark.parametrize(("scope", "name"), list(product(SCOPES, AMOUNTS)))
every_budget_of_every_scope = pytest.mark.parametrize(("scope", "name"), list(product(SCOPES, BUDGETS)))
every_rate_of_every_scope = pytest.mark.parametrize(("scope", "name"), list(product(SCOPES, RATES)))


def wait_ms(name: LimitName, units: int, most: int) -> int:
    """How long until `units` fit, when all of `most` is held and nobody settles."""
    return -(-units * 60_000 // most) if name in RATES else 1000


@every_limit_of_every_scope
async def test_0_forbids(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 0))
    answer = await trio.ask(name, 1)
    assert (answer.verdict, answer.scope, answer.limit_name) == ("too_large", scope, name)
    assert answer.state is not None
    assert (answer.state.limit, answer.state.remaining) == (0, 0)


@every_amount_of_every_scope
async def test_0_lets_through_what_uses_nothing_of_it(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 0))
    assert (await trio.ask(name, 0)).verdict == "held"


@every_limit_of_every_scope
async def test_exactly_the_limit_fits_and_one_more_waits(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 12))
    await trio.use_up(name, 12)
    answer = await trio.ask(name, 1)
    assert (answer.verdict, answer.scope, answer.limit_name) == ("refused", scope, name)
    assert answer.retry_after_ms == wait_ms(name, 1, 12)
    assert answer.state is not None
    assert (answer.state.limit, answer.state.remaining) == (12, 0)


@every_amount_of_every_scope
async def test_one_above_the_whole_limit_never_fits(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 12))
    answer = await trio.ask(name, 13)
    assert (answer.verdict, answer.scope, answer.limit_name) == ("too_large", scope, name)
    assert (await trio.ask(name, 12)).verdict == "held"


@every_rate_of_every_scope
@pytest.mark.parametrize("most", [3, 60, 997])
async def test_a_refused_rate_fits_after_exactly_the_time_it_was_told(
    trio: Trio, scope: Scope, name: LimitName, most: int
) -> None:
    store = trio.store
    await trio.limit(scope, limit(name, most))
    await trio.use_up(name, most)
    store.now_us += 12_345
    refused = await trio.ask(name, 1)
    assert refused.verdict == "refused"
    store.now_us += refused.retry_after_ms * 1000 - 1000
    assert (await trio.ask(name, 1)).verdict == "refused"
    store.now_us += 1000
    assert (await trio.ask(name, 1)).verdict == "held"
    assert (await trio.ask(name, 1)).verdict == "refused"


async def test_the_wait_for_tokens_is_exact_for_the_amount_asked(trio: Trio) -> None:
    await trio.limit("user", limit("tokens_per_minute", 6000))
    await trio.use_up("tokens_per_minute", 6000)
    assert (await trio.hold(tokens=1)).retry_after_ms == 10
    assert (await trio.hold(tokens=3000)).retry_after_ms == 30_000
    trio.store.now_us += 30 * SECOND_US - 1
    assert (await trio.hold(tokens=3000)).retry_after_ms == 1
    trio.store.now_us += 1
    assert (await trio.hold(tokens=3000)).verdict == "held"


@every_budget_of_every_scope
async def test_what_is_spent_comes_back_with_the_next_period_and_not_a_moment_before(
    trio: Trio, scope: Scope, name: LimitName
) -> None:
    await trio.limit(scope, limit(name, 1000))
    await trio.ask(name, 1000, "spent")
    await trio.store.settle("spent", usage(1000, 1000))
    refused = await trio.ask(name, 1)
    assert (refused.verdict, refused.retry_after_ms) == ("refused", REST_OF_PERIOD_MS[name])
    assert refused.state == LimitState(1000, 0, REST_OF_PERIOD_MS[name] / 1000)
    trio.store.now_us += REST_OF_PERIOD_MS[name] * 1000 - 1
    assert (await trio.ask(name, 1)).retry_after_ms == 1
    trio.store.now_us += 1
    assert (await trio.ask(name, 1000)).verdict == "held"


@every_budget_of_every_scope
async def test_what_is_only_held_may_come_back_in_a_second(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 1000))
    await trio.ask(name, 800, "held")
    refused = await trio.ask(name, 300)
    assert (refused.retry_after_ms, refused.state) == (1000, LimitState(1000, 200, REST_OF_PERIOD_MS[name] / 1000))
    await trio.store.settle("held", usage(100, 100))
    assert (await trio.ask(name, 300)).verdict == "held"
    # 100 spent and 300 held: 700 more would fit when the call in flight turns out to cost nothing, 901 would not
    assert (await trio.ask(name, 700)).retry_after_ms == 1000
    assert (await trio.ask(name, 901)).retry_after_ms == REST_OF_PERIOD_MS[name]


@every_limit_of_every_scope
async def test_a_refusal_charges_nothing_to_anybody(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 3))
    await trio.use_up(name, 3)
    before = await trio.store.snapshot(trio.subjects.values())
    meters = {subject: figures(meter) for subject, meter in before.meters.items()}
    holds = dict(before.holds)
    assert (await trio.ask(name, 1)).verdict == "refused"
    after = await trio.store.snapshot(trio.subjects.values())
    assert {subject: figures(meter) for subject, meter in after.meters.items()} == meters
    assert after.holds == holds


@pytest.mark.parametrize("name", LIMIT_NAMES)
async def test_a_hold_charges_everybody_who_is_named(trio: Trio, name: LimitName) -> None:
    await trio.use_up(name, 3)
    snapshot = await trio.store.snapshot(trio.subjects.values())
    assert len({figures(meter) for meter in snapshot.meters.values()}) == 1
    for scope in SCOPES:
        await trio.limit(scope, limit(name, 3))
        if name not in RATES:  # without a limit no rate is kept
            assert (await trio.ask(name, 1)).scope == scope
        await trio.limit(scope, SubjectLimits())


async def test_of_several_limits_in_the_way_the_longest_is_named(trio: Trio) -> None:
    await trio.limit("user", SubjectLimits(requests_per_minute=1, nano_usd_per_day=100))
    await trio.limit("workspace", SubjectLimits(requests_per_minute=3, nano_usd_per_month=100))
    await trio.hold("spent", cost_nano_usd=100)
    await trio.store.settle("spent", usage(cost_nano_usd=100))
    longest = await trio.hold(cost_nano_usd=1)
    assert (longest.scope, longest.limit_name) == ("workspace", "nano_usd_per_month")
    free = await trio.hold()
    assert (free.scope, free.limit_name, free.retry_after_ms) == ("user", "requests_per_minute", 60_000)


async def test_of_equally_long_waits_the_first_scopes_first_limit_is_named(trio: Trio) -> None:
    for scope in SCOPES:
        await trio.limit(scope, SubjectLimits(calls_in_flight=1, nano_usd_per_day=10))
    await trio.hold(cost_nano_usd=10)
    for scope in SCOPES:
        answer = await trio.hold(cost_nano_usd=1)
        assert (answer.scope, answer.limit_name, answer.retry_after_ms) == (scope, "calls_in_flight", 1000)
        await trio.limit(scope, SubjectLimits())


async def test_the_tightest_rates_are_told_and_none_where_nobody_has_any(trio: Trio) -> None:
    unlimited = await trio.hold(tokens=5)
    assert (unlimited.requests, unlimited.tokens) == (None, None)
    await trio.limit("user", SubjectLimits(requests_per_minute=60, tokens_per_minute=6000))
    await trio.limit("key", SubjectLimits(requests_per_minute=6, tokens_per_minute=600_000))
    held = await trio.hold(tokens=600)
    assert held.requests == LimitState(6, 5, 10.0)
    assert held.tokens == LimitState(6000, 5400, 6.0)


async def test_of_equally_tight_rates_the_first_scopes_is_told(trio: Trio) -> None:
    await trio.limit("workspace", SubjectLimits(requests_per_minute=3, tokens_per_minute=200))
    await trio.limit("user", SubjectLimits(requests_per_minute=3, tokens_per_minute=200))
    await trio.hold("a", tokens=100)
    await trio.hold(tokens=100)
    # lowered below what is used: nothing remains of either, and the user's is the first
    await trio.limit("user", SubjectLimits(requests_per_minute=1, tokens_per_minute=100))
    for answer in (await trio.hold(tokens=1), await trio.store.reprice("a", Amount(100, 0))):
        assert answer.requests is not None
        assert answer.tokens is not None
        assert (answer.requests.limit, answer.requests.remaining) == (1, 0)
        assert (answer.tokens.limit, answer.tokens.remaining) == (100, 0)


async def test_who_has_no_key_and_no_workspace_is_measured_alone(trio: Trio) -> None:
    for scope in SCOPES[1:]:
        await trio.limit(scope, limit("requests_per_minute", 0))
    alone = replace(trio.call(), key_id=None, workspace_id=None)
    assert (await trio.store.hold(alone, uuid4())).verdict == "held"
    snapshot = await trio.store.snapshot(trio.subjects.values())
    assert [subject for subject, meter in snapshot.meters.items() if meter.in_flight] == [trio.subjects["user"]]


async def test_users_of_one_workspace_share_its_limit_and_nothing_else(trio: Trio) -> None:
    await trio.limit("workspace", limit("calls_in_flight", 2))
    other = Trio(trio.store, uuid4())
    other.subjects["workspace"] = trio.subjects["workspace"]
    await trio.store.add_user(other.subjects["user"][1])
    assert [(await one.hold()).verdict for one in (trio, other, trio)] == ["held", "held", "refused"]
    assert (await other.hold()).scope == "workspace"
    other.subjects["workspace"] = ("workspace", uuid4())
    assert (await other.hold()).verdict == "held"
