"""A call is charged to its user, its key and its workspace, in all of their limits, or in none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from llm_gateway.limits.ledger import LimitName, Scope
from tests.support.ledger import NOW_US, Clockwork, TestLimits, clockwork_of_its_own, new_user, set_limits

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
SCOPES: tuple[Scope, ...] = ("user", "key", "workspace")
ROOMY = TestLimits()
# what fits a limit of 100 once and not twice, and what it is told then: the rates refill, the rest ends or begins anew
TWICE: dict[LimitName, tuple[int, dict[str, int], int]] = {
    "requests_per_minute": (1, {}, 60_000),
    "tokens_per_minute": (100, {"tokens": 60}, 12_000),
    "calls_in_flight": (1, {}, 1000),
    "tokens_per_day": (100, {"tokens": 60}, 1000),
    "nano_usd_per_day": (100, {"cost_nano_usd": 60}, 1000),
    "nano_usd_per_month": (100, {"cost_nano_usd": 60}, 1000),
}


@pytest.fixture
async def clockwork(database: asyncpg.Connection) -> AsyncIterator[Clockwork]:
    async with clockwork_of_its_own(database) as own:
        yield own


class Subjects:
    """A user, a key and a workspace, and a stranger in the same workspace."""

    def __init__(self, clockwork: Clockwork, user_id: UUID, stranger: UUID) -> None:
        self.clockwork = clockwork
        self.ids: dict[Scope, UUID] = {"user": user_id, "key": uuid4(), "workspace": uuid4()}
        self.stranger = stranger

    async def limit(self, scope: Scope, **limits: int | None) -> None:
        await set_limits(self.clockwork.database, self.ids[scope], TestLimits(**limits), scope=scope)

    async def call(self, now_us: int = NOW_US, **call: Any) -> dict[str, Any]:  # what NewCall has
        return await self.clockwork.hold(
            now_us, self.ids["user"], key_id=self.ids["key"], workspace_id=self.ids["workspace"], **call
        )

    async def used(self) -> dict[Scope, tuple[int, ...]]:
        columns = ("requests_tat_ns", "tokens_tat_ns", "in_flight", "held_tokens", "held_nano_usd")
        meters = {scope: await self.clockwork.meter(self.ids[scope], scope) for scope in SCOPES}
        return {scope: tuple(meter[column] for column in columns) for scope, meter in meters.items()}


@pytest.fixture
async def subjects(clockwork: Clockwork) -> Subjects:
    return Subjects(clockwork, await new_user(clockwork.database, ROOMY), await new_user(clockwork.database, ROOMY))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("limit_name", TWICE)
async def test_each_limit_of_each_scope_refuses_by_its_name_and_nothing_is_charged(
    subjects: Subjects, scope: Scope, limit_name: LimitName
) -> None:
    limit, call, wait_ms = TWICE[limit_name]
    await subjects.limit(scope, **{limit_name: limit})
    assert (await subjects.call(**{"tokens": 0, **call}))["verdict"] == "held"
    before = await subjects.used()
    refused = await subjects.call(**{"tokens": 0, **call})
    assert (refused["verdict"], refused["scope"], refused["limit_name"]) == ("refused", scope, limit_name)
    assert (refused["retry_after_ms"], refused["state_limit"]) == (wait_ms, limit)
    assert refused["state_remaining"] == limit - next(iter(call.values()), 1)
    assert await subjects.used() == before


async def test_without_limits_of_its_own_a_key_or_a_workspace_is_only_counted(subjects: Subjects) -> None:
    for _ in range(3):
        await subjects.call(request_id=(request_id := uuid4().hex), tokens=100, cost_nano_usd=7)
        await subjects.clockwork.settle(NOW_US, request_id, tokens=90, cost_nano_usd=6)
    for scope in SCOPES:
        meter = await subjects.clockwork.meter(subjects.ids[scope], scope)
        assert (meter["in_flight"], meter["day_tokens"], meter["day_nano_usd"], meter["month_nano_usd"]) == (
            0,
            270,
            18,
            18,
        )
    # a limit that comes later knows what was used
    await subjects.limit("key", tokens_per_day=300)
    refused = await subjects.call(tokens=31)
    assert (refused["scope"], refused["limit_name"], refused["state_remaining"]) == ("key", "tokens_per_day", 30)


async def test_a_plan_may_be_a_keys_or_a_workspaces_too_and_an_override_beats_it(subjects: Subjects) -> None:
    database = subjects.clockwork.database
    await database.execute("insert into gateway.plans (name, requests_per_minute) values ('small', 2)")
    await database.execute(
        "insert into gateway.limits (scope, subject_id, plan) values ('key', $1, 'small')", subjects.ids["key"]
    )
    assert (await subjects.call())["requests_limit"] == 2
    await database.execute("update gateway.limits set requests_per_minute = 5 where plan = 'small'")
    assert (await subjects.call())["requests_limit"] == 5


async def test_of_several_limits_in_the_way_the_longest_is_named_and_of_equals_the_first(subjects: Subjects) -> None:
    await subjects.limit("user", calls_in_flight=1)
    await subjects.limit("key", calls_in_flight=1, tokens_per_day=1)
    await subjects.limit("workspace", requests_per_minute=2)
    await subjects.call(tokens=1)
    equal = await subjects.call(tokens=1)
    assert (equal["scope"], equal["limit_name"], equal["retry_after_ms"]) == ("user", "calls_in_flight", 1000)
    await subjects.limit("workspace", requests_per_minute=1)
    longest = await subjects.call(tokens=1)
    assert (longest["scope"], longest["limit_name"], longest["retry_after_ms"]) == (
        "workspace",
        "requests_per_minute",
        60_000,
    )
    never = await subjects.call(tokens=2)
    assert (never["verdict"], never["scope"], never["limit_name"]) == ("too_large", "key", "tokens_per_day")


async def test_an_answer_shows_the_tightest_rates_of_all_scopes(subjects: Subjects) -> None:
    await subjects.limit("user", requests_per_minute=10, tokens_per_minute=6000)
    await subjects.limit("key", requests_per_minute=30, tokens_per_minute=600)
    held = await subjects.call(tokens=60)
    assert [held[f"requests_{name}"] for name in ("limit", "remaining", "reset_ms")] == [10, 9, 6000]
    assert [held[f"tokens_{name}"] for name in ("limit", "remaining", "reset_ms")] == [600, 540, 6000]


async def test_members_of_a_workspace_share_its_limits_and_keep_their_own(subjects: Subjects) -> None:
    await subjects.limit("workspace", calls_in_flight=2)
    workspace_id = subjects.ids["workspace"]
    assert (await subjects.call())["verdict"] == "held"
    mate = await subjects.clockwork.hold(NOW_US, subjects.stranger, workspace_id=workspace_id, request_id="mate")
    assert mate["verdict"] == "held"
    assert (await subjects.call())["scope"] == "workspace"
    assert (await subjects.clockwork.hold(NOW_US, subjects.stranger))["verdict"] == "held", "for nobody's workspace"
    await subjects.clockwork.settle(NOW_US, "mate")
    assert (await subjects.call())["verdict"] == "held"


@pytest.mark.parametrize(
    ("limit_name", "amount", "begins_anew"),
    [
        ("tokens_per_day", "tokens", datetime(2027, 1, 16, tzinfo=UTC)),
        ("nano_usd_per_day", "cost_nano_usd", datetime(2027, 1, 16, tzinfo=UTC)),
        ("nano_usd_per_month", "cost_nano_usd", datetime(2027, 2, 1, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("scope", SCOPES)
async def test_debt_refuses_what_costs_until_the_period_is_over_and_lets_free_calls_pass(
    subjects: Subjects, scope: Scope, limit_name: LimitName, amount: str, begins_anew: datetime
) -> None:
    await subjects.limit(scope, **{limit_name: 1000})
    await subjects.call(request_id="a", **{"tokens": 0, amount: 1000})
    await subjects.clockwork.settle(NOW_US, "a", **{amount: 1500})
    anew_us = round(begins_anew.timestamp() * SECOND_US)
    refused = await subjects.call(**{"tokens": 0, amount: 1})
    assert (refused["verdict"], refused["scope"], refused["limit_name"]) == ("refused", scope, limit_name)
    assert (refused["state_remaining"], refused["retry_after_ms"]) == (0, (anew_us - NOW_US) // 1000)
    assert refused["state_reset_ms"] == refused["retry_after_ms"]
    # 10 tokens of the call above are still being waited for in the rate, so the free call comes a little later
    assert (await subjects.call(NOW_US + SECOND_US, tokens=0, cost_nano_usd=0))["verdict"] == "held"
    assert (await subjects.call(anew_us - 1, **{"tokens": 0, amount: 1}))["verdict"] == "refused"
    assert (await subjects.call(anew_us, **{"tokens": 0, amount: 1}))["verdict"] == "held"


async def test_what_is_held_over_midnight_is_used_by_both_days_until_it_is_settled(subjects: Subjects) -> None:
    await subjects.limit("user", tokens_per_day=100)
    midnight_us = (NOW_US // DAY_US + 1) * DAY_US
    await subjects.call(midnight_us - 1, request_id="across", tokens=80)
    assert (await subjects.call(midnight_us, tokens=21))["limit_name"] == "tokens_per_day"
    await subjects.clockwork.settle(midnight_us, "across", tokens=30)
    assert (await subjects.call(midnight_us, tokens=71))["state_remaining"] == 70
    assert (await subjects.call(midnight_us, tokens=70))["verdict"] == "held"


async def test_a_hold_takes_and_gives_back_in_every_scope(subjects: Subjects) -> None:
    for scope in SCOPES:
        await subjects.limit(scope, tokens_per_minute=6000, tokens_per_day=6000, nano_usd_per_day=6000)
    await subjects.call(request_id="a", tokens=6000, cost_nano_usd=6000)
    assert (await subjects.call(tokens=1))["verdict"] == "refused"
    await subjects.clockwork.settle(NOW_US, "a", tokens=1000, cost_nano_usd=1000)
    held = await subjects.call(tokens=5000, cost_nano_usd=5000)
    assert (held["verdict"], held["tokens_remaining"]) == ("held", 0)


async def test_a_call_may_hold_more_or_less_in_all_limits_or_stays_as_it_was(subjects: Subjects) -> None:
    for scope in SCOPES:
        await subjects.limit(scope, tokens_per_minute=6000, nano_usd_per_month=1000)
    await subjects.limit("workspace", nano_usd_per_month=800)
    await subjects.call(request_id="a", tokens=1000, cost_nano_usd=100)
    more = await subjects.clockwork.reprice(NOW_US, "a", 4000, 500)
    assert (more["verdict"], more["tokens_remaining"], more["requests_remaining"]) == ("held", 2000, 999)
    before = await subjects.used()
    refused = await subjects.clockwork.reprice(NOW_US, "a", 5000, 801)
    assert (refused["verdict"], refused["scope"], refused["limit_name"]) == (
        "too_large",
        "workspace",
        "nano_usd_per_month",
    )
    await subjects.call(request_id="b", tokens=2000)
    later = await subjects.clockwork.reprice(NOW_US, "a", 4600, 500)
    assert (later["verdict"], later["limit_name"], later["retry_after_ms"]) == ("refused", "tokens_per_minute", 6000)
    await subjects.clockwork.void(NOW_US, "b")
    assert [used[2:] for used in (await subjects.used()).values()] == [used[2:] for used in before.values()]
    less = await subjects.clockwork.reprice(NOW_US, "a", 500, 50)
    # its own first stretch lies before what `b` gave back: nothing more comes back at once, and in a minute all of it
    assert (less["verdict"], less["tokens_remaining"]) == ("held", 2000)
    await subjects.clockwork.settle(NOW_US, "a", tokens=500, cost_nano_usd=50)
    [row] = await subjects.clockwork.usage("a")
    assert (row["held_tokens"], row["held_nano_usd"], row["cost_nano_usd"]) == (500, 50, 50)
    assert [used[2:] for used in (await subjects.used()).values()] == [(0, 0, 0)] * 3
    assert (await subjects.clockwork.reprice(NOW_US, "a", 1, 1))["verdict"] == "lost"


async def test_repricing_to_less_is_never_refused_not_even_in_debt(subjects: Subjects) -> None:
    await subjects.limit("user", tokens_per_day=100, nano_usd_per_day=100, tokens_per_minute=100)
    await subjects.call(request_id="a", tokens=50, cost_nano_usd=50)
    await subjects.call(request_id="b", tokens=50, cost_nano_usd=50)
    await subjects.clockwork.settle(NOW_US, "b", tokens=500, cost_nano_usd=500)
    assert (await subjects.clockwork.reprice(NOW_US, "a", 50, 50))["verdict"] == "held"
    assert (await subjects.clockwork.reprice(NOW_US, "a", 10, 10))["verdict"] == "held"
    assert (await subjects.clockwork.reprice(NOW_US, "a", 11, 10))["verdict"] == "refused"
