"""Each limit by itself, on the real database, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from tests.support.ledger import (
    NOW_US,
    Clockwork,
    TestLimits,
    at,
    clockwork_of_its_own,
    new_user,
    set_limits,
    user_with,
)

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US


@pytest.fixture
async def clockwork(database: asyncpg.Connection) -> AsyncIterator[Clockwork]:
    async with clockwork_of_its_own(database) as own:
        yield own


@pytest.mark.parametrize("limit", [1, 7, 50, 999])
async def test_exactly_the_limit_fits_at_once_and_then_one_at_a_time(clockwork: Clockwork, limit: int) -> None:
    user_id = await user_with(clockwork, requests_per_minute=limit)
    verdicts = [(await clockwork.hold(NOW_US, user_id))["verdict"] for _ in range(limit + 3)]
    assert verdicts == ["held"] * limit + ["refused"] * 3
    unit_us = -(-MINUTE_US // limit)
    assert (await clockwork.hold(NOW_US + unit_us, user_id))["verdict"] == "held"
    assert (await clockwork.hold(NOW_US + unit_us, user_id))["verdict"] == "refused"


@pytest.mark.parametrize("limit", [3, 60, 997])
async def test_a_refused_request_fits_after_exactly_the_time_it_was_told(clockwork: Clockwork, limit: int) -> None:
    user_id = await user_with(clockwork, requests_per_minute=limit)
    for _ in range(limit):
        await clockwork.hold(NOW_US, user_id)
    refused = await clockwork.hold(NOW_US + 12_345, user_id)
    assert (refused["verdict"], refused["limit_name"]) == ("refused", "requests_per_minute")
    back_us = NOW_US + 12_345 + refused["retry_after_ms"] * 1000
    assert (await clockwork.hold(back_us - 1000, user_id))["verdict"] == "refused"
    assert (await clockwork.hold(back_us, user_id))["verdict"] == "held"


async def test_tokens_wait_is_exact_for_the_amount_asked(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, tokens_per_minute=6000)
    await clockwork.hold(NOW_US, user_id, tokens=6000)
    small = await clockwork.hold(NOW_US, user_id, tokens=1)
    large = await clockwork.hold(NOW_US, user_id, tokens=3000)
    assert (small["retry_after_ms"], large["retry_after_ms"]) == (10, 30_000)
    assert large["limit_name"] == "tokens_per_minute"
    assert (large["state_limit"], large["state_remaining"], large["state_reset_ms"]) == (6000, 0, 60_000)
    assert (await clockwork.hold(NOW_US + 30 * SECOND_US, user_id, tokens=3000))["verdict"] == "held"


@pytest.mark.parametrize(
    ("limit", "call"),
    [
        ("tokens_per_minute", {"tokens": 101}),
        ("tokens_per_day", {"tokens": 101}),
        ("nano_usd_per_day", {"cost_nano_usd": 101}),
        ("nano_usd_per_month", {"cost_nano_usd": 101}),
    ],
)
async def test_a_call_larger_than_a_whole_limit_is_told_so_and_charged_nothing(
    clockwork: Clockwork, limit: str, call: dict[str, int]
) -> None:
    user_id = await user_with(clockwork, **{limit: 100})
    answer = await clockwork.hold(NOW_US, user_id, **call)
    assert (answer["verdict"], answer["limit_name"]) == ("too_large", limit)
    assert (answer["state_limit"], answer["state_remaining"], answer["requests_remaining"]) == (100, 100, 1000)
    fits = {name: amount - 1 for name, amount in call.items()}
    assert (await clockwork.hold(NOW_US, user_id, **fits))["verdict"] == "held"


@pytest.mark.parametrize("limit", ["requests_per_minute", "calls_in_flight"])
async def test_a_limit_of_zero_is_never_worth_waiting_for(clockwork: Clockwork, limit: str) -> None:
    user_id = await user_with(clockwork, **{limit: 0})
    answer = await clockwork.hold(NOW_US, user_id)
    assert (answer["verdict"], answer["limit_name"]) == ("too_large", limit)


async def test_tokens_not_used_are_there_again_at_once(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, tokens_per_minute=6000)
    await clockwork.hold(NOW_US, user_id, request_id="a", tokens=6000)
    await clockwork.settle(NOW_US, "a", tokens=1000)
    answer = await clockwork.hold(NOW_US, user_id, tokens=5000)
    assert (answer["verdict"], answer["tokens_remaining"]) == ("held", 0)


async def test_tokens_that_were_refilled_already_are_not_given_back_a_second_time(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, tokens_per_minute=6000)
    await clockwork.hold(NOW_US, user_id, request_id="long", tokens=6000)
    a_minute_later = NOW_US + MINUTE_US
    await clockwork.hold(a_minute_later, user_id, request_id="full", tokens=6000)
    await clockwork.settle(a_minute_later, "long", tokens=0)
    answer = await clockwork.hold(a_minute_later, user_id, tokens=1)
    assert (answer["verdict"], answer["tokens_remaining"]) == ("refused", 0)


async def test_tokens_beyond_the_hold_are_waited_for(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, tokens_per_minute=6000)
    await clockwork.hold(NOW_US, user_id, request_id="a", tokens=100)
    await clockwork.settle(NOW_US, "a", tokens=12_000)
    answer = await clockwork.hold(NOW_US, user_id, tokens=0)
    assert (answer["verdict"], answer["retry_after_ms"]) == ("refused", 60_000)


async def test_a_slot_comes_back_by_settle_by_void_and_by_reap(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, calls_in_flight=3)
    for request_id in ("settled", "voided", "reaped"):
        await clockwork.hold(NOW_US, user_id, request_id=request_id, lease_ms=1000)
    full = await clockwork.hold(NOW_US, user_id)
    assert (full["verdict"], full["limit_name"], full["retry_after_ms"]) == ("refused", "calls_in_flight", 1000)
    assert (full["state_limit"], full["state_remaining"]) == (3, 0)
    await clockwork.settle(NOW_US, "settled")
    await clockwork.void(NOW_US, "voided")
    assert await clockwork.reap(NOW_US + SECOND_US) == 1
    assert (await clockwork.meter(user_id))["in_flight"] == 0
    assert (await clockwork.hold(NOW_US + SECOND_US, user_id))["verdict"] == "held"


async def test_void_gives_back_everything_but_the_request(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork)
    before = await clockwork.hold(NOW_US, user_id, request_id="a", tokens=500, cost_nano_usd=700)
    await clockwork.void(NOW_US, "a")
    after = await clockwork.hold(NOW_US, user_id, tokens=0)
    assert before["requests_remaining"] - after["requests_remaining"] == 1
    assert after["tokens_remaining"] == after["tokens_limit"]
    meter = await clockwork.meter(user_id)
    assert [meter[name] for name in ("held_tokens", "held_nano_usd", "day_tokens", "month_nano_usd")] == [0] * 4
    [row] = await clockwork.usage("a")
    assert (row["state"], row["cost_nano_usd"], row["outcome"], row["input_tokens"]) == ("voided", 0, None, 0)


async def test_reaper_charges_what_was_held_and_says_that_it_guessed(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork)
    await clockwork.hold(NOW_US, user_id, request_id="a", tokens=500, cost_nano_usd=700, lease_ms=5000)
    assert await clockwork.reap(NOW_US + 5 * SECOND_US - 1) == 0
    assert await clockwork.reap(NOW_US + 5 * SECOND_US) == 1
    [row] = await clockwork.usage("a")
    assert (row["state"], row["outcome"], row["estimated"], row["cost_nano_usd"]) == ("expired", "unknown", True, 700)
    assert row["input_tokens"] == 500
    meter = await clockwork.meter(user_id)
    assert (meter["day_tokens"], meter["day_nano_usd"], meter["month_nano_usd"]) == (500, 700, 700)


async def test_reaper_takes_no_more_than_its_batch_and_the_most_overdue_first(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork)
    for number in range(5):
        await clockwork.hold(NOW_US, user_id, request_id=f"r{number}", lease_ms=1000 + 1000 * number)
    assert await clockwork.reap(NOW_US + MINUTE_US, at_most=3) == 3
    assert [len(await clockwork.usage(f"r{number}")) for number in range(5)] == [1, 1, 1, 0, 0]


async def test_a_renewed_lease_outlives_the_old_one_and_is_never_shortened(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork)
    await clockwork.hold(NOW_US, user_id, request_id="a", lease_ms=10_000)
    assert await clockwork.renew(NOW_US + 5 * SECOND_US, "a", 10_000)
    assert await clockwork.renew(NOW_US + 5 * SECOND_US, "a", 1000)
    assert await clockwork.reap(NOW_US + 14 * SECOND_US) == 0
    assert await clockwork.reap(NOW_US + 15 * SECOND_US) == 1
    assert not await clockwork.renew(NOW_US + 15 * SECOND_US, "a", 10_000)


async def test_an_edit_counts_from_the_next_call_and_forgets_nothing(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, requests_per_minute=10, tokens_per_minute=1000, nano_usd_per_month=1000)
    for number in range(8):
        await clockwork.hold(NOW_US, user_id, request_id=f"r{number}", tokens=100, cost_nano_usd=100)
    await set_limits(clockwork.database, user_id, TestLimits(20, 2000, 9, 2000))
    raised = await clockwork.hold(NOW_US, user_id, tokens=100, cost_nano_usd=100)
    assert (raised["requests_remaining"], raised["tokens_remaining"]) == (11, 1100)
    await set_limits(clockwork.database, user_id, TestLimits(5, 500, 100, 500))
    lowered = await clockwork.hold(NOW_US, user_id, tokens=1, cost_nano_usd=1)
    assert lowered["verdict"] == "refused"
    assert (lowered["requests_remaining"], lowered["tokens_remaining"]) == (0, 0)
    # nine requests count as used of five: four to wait off, and one for the next to fit
    assert lowered["requests_reset_ms"] == 9 * 12_000


async def test_a_limit_that_is_taken_away_for_a_while_forgets_neither_rate_nor_budget(clockwork: Clockwork) -> None:
    limited = TestLimits(requests_per_minute=2, tokens_per_minute=1000, tokens_per_day=600, nano_usd_per_day=600)
    unlimited = TestLimits(None, None, None, None, None, None)
    user_id = await new_user(clockwork.database, limited)
    await clockwork.hold(NOW_US, user_id, request_id="before", tokens=300, cost_nano_usd=300)
    # a limit of null means what the plan says: here a plan without limits
    await clockwork.database.execute("insert into gateway.plans (name) values ('everything')")
    await set_limits(clockwork.database, user_id, unlimited)
    await clockwork.database.execute("update gateway.limits set plan = 'everything' where subject_id = $1", user_id)
    free = await clockwork.hold(NOW_US, user_id, tokens=200, cost_nano_usd=200)
    assert (free["verdict"], free["requests_limit"], free["tokens_limit"]) == ("held", None, None)
    await set_limits(clockwork.database, user_id, limited)
    again = await clockwork.hold(NOW_US, user_id, tokens=100, cost_nano_usd=100)
    assert (again["verdict"], again["requests_remaining"], again["tokens_remaining"]) == ("held", 0, 600)
    await set_limits(clockwork.database, user_id, TestLimits(tokens_per_day=600, nano_usd_per_day=10**6))
    assert (await clockwork.hold(NOW_US, user_id, tokens=1))["limit_name"] == "tokens_per_day"
    await clockwork.settle(NOW_US, "before", tokens=0)
    assert (await clockwork.hold(NOW_US, user_id, tokens=300))["verdict"] == "held"


async def test_limits_come_from_the_user_then_their_plan_then_the_default_plan(clockwork: Clockwork) -> None:
    await clockwork.database.execute(
        "insert into gateway.plans (name, requests_per_minute, tokens_per_minute) values ('silver', 600, 700)"
    )
    user_id = await new_user(clockwork.database)
    free = await clockwork.database.fetchval("select requests_per_minute from gateway.plans where is_default")
    assert (await clockwork.hold(NOW_US, user_id))["requests_limit"] == free
    await clockwork.database.execute(
        "insert into gateway.limits (scope, subject_id, plan) values ('user', $1, 'silver')", user_id
    )
    on_plan = await clockwork.hold(NOW_US, user_id)
    assert (on_plan["requests_limit"], on_plan["tokens_limit"]) == (600, 700)
    await clockwork.database.execute("update gateway.limits set tokens_per_minute = 42 where subject_id = $1", user_id)
    assert (await clockwork.hold(NOW_US, user_id))["tokens_limit"] == 42


async def test_there_is_never_a_second_default_plan(clockwork: Clockwork) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await clockwork.database.execute("insert into gateway.plans (name, is_default) values ('second', true)")


async def test_without_a_default_plan_nobody_calls_for_free(clockwork: Clockwork) -> None:
    user_id = await new_user(clockwork.database)
    await clockwork.database.execute("update gateway.plans set is_default = false")
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await clockwork.hold(NOW_US, user_id)


async def test_a_user_who_does_not_exist_gets_no_hold_and_no_meter(clockwork: Clockwork) -> None:
    nobody = uuid4()
    assert (await clockwork.hold(NOW_US, nobody))["verdict"] == "unknown_user"
    assert not await clockwork.database.fetchval("select count(*) from gateway.meters where subject_id = $1", nobody)
    somebody = await user_with(clockwork)
    await clockwork.hold(NOW_US, somebody, request_id="a")
    await clockwork.database.execute("delete from auth.users where id = $1", somebody)
    assert (await clockwork.hold(NOW_US, somebody))["verdict"] == "unknown_user"
    assert await clockwork.settle(NOW_US, "a", tokens=3) == "settled", "what was begun is still paid"


async def test_the_same_id_is_charged_once_and_let_through_once(clockwork: Clockwork) -> None:
    user_id, attempt = await user_with(clockwork), uuid4()
    first = await clockwork.hold(NOW_US, user_id, request_id="a", attempt=attempt, tokens=10)
    lost = await clockwork.hold(NOW_US, user_id, request_id="a", attempt=attempt, tokens=10)
    second = await clockwork.hold(NOW_US, user_id, request_id="a", tokens=10)
    assert [answer["verdict"] for answer in (first, lost, second)] == ["held", "held", "duplicate"]
    assert (await clockwork.meter(user_id))["in_flight"] == 1
    await clockwork.settle(NOW_US, "a", tokens=10)
    for somebody in (user_id, await user_with(clockwork)):
        assert (await clockwork.hold(NOW_US, somebody, request_id="a"))["verdict"] == "duplicate"
    assert await clockwork.database.fetchval("select count(*) from gateway.holds where request_id = 'a'") == 0


async def test_a_lost_answer_is_given_again_even_when_nothing_more_would_fit(clockwork: Clockwork) -> None:
    user_id, attempt = await user_with(clockwork, calls_in_flight=1), uuid4()
    await clockwork.hold(NOW_US, user_id, request_id="a", attempt=attempt)
    assert (await clockwork.hold(NOW_US, user_id, request_id="a", attempt=attempt))["verdict"] == "held"
    assert (await clockwork.hold(NOW_US, user_id, request_id="a"))["verdict"] == "refused"


async def test_who_finishes_second_changes_nothing_and_learns_what_happened(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork)
    await clockwork.hold(NOW_US, user_id, request_id="a", cost_nano_usd=100)
    assert await clockwork.settle(NOW_US, "a", cost_nano_usd=40) == "settled"
    assert await clockwork.settle(NOW_US, "a", cost_nano_usd=90) == "settled"
    assert await clockwork.void(NOW_US, "a") == "settled"
    assert await clockwork.settle(NOW_US, "never held") == "unknown"
    assert [row["cost_nano_usd"] for row in await clockwork.usage("a")] == [40]


@pytest.mark.parametrize(
    ("tokens", "cost", "lease_ms"), [(-1, 0, 1000), (0, -1, 1000), (0, 0, 999), (0, 0, 3_600_001), (10**9 + 1, 0, 1000)]
)
async def test_amounts_out_of_range_are_refused_by_the_database_too(
    clockwork: Clockwork, tokens: int, cost: int, lease_ms: int
) -> None:
    user_id = await user_with(clockwork)
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await clockwork.hold(NOW_US, user_id, tokens=tokens, cost_nano_usd=cost, lease_ms=lease_ms)


async def test_a_usage_row_stays_under_600_bytes_at_its_widest(clockwork: Clockwork) -> None:
    user_id, request_id = await user_with(clockwork), "r" * 64
    await clockwork.hold(NOW_US, user_id, key_id=uuid4(), workspace_id=uuid4(), request_id=request_id, model="m" * 128)
    await clockwork.database.execute(
        "select gateway.post_at($1, $2, array[null]::uuid[], '{settled}', '{provider_error}', '{true}',"
        " '{count_tokens}', $3, array_fill(1000000000, '{9}'), array[10 ^ 15]::bigint[],"
        " '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
        at(NOW_US),
        [request_id],
        ["d" * 128],
    )
    size = await clockwork.database.fetchval(
        "select pg_column_size(u.*) from gateway.usage as u where u.request_id = $1", request_id
    )
    assert 400 < size < 600
