"""Dollars a month, on the real database, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from tests.support.ledger import NOW_US, Clockwork, clockwork_of_its_own, user_with

SECOND_US = 1_000_000


@pytest.fixture
async def clockwork(database: asyncpg.Connection) -> AsyncIterator[Clockwork]:
    async with clockwork_of_its_own(database) as own:
        yield own


async def test_money_held_is_not_there_for_others_until_it_is_given_back(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, nano_usd_per_month=1000)
    await clockwork.hold(NOW_US, user_id, request_id="a", cost_nano_usd=800)
    refused = await clockwork.hold(NOW_US, user_id, cost_nano_usd=300)
    # the money may come back any moment: to send the caller away until next month would be a lie
    assert (refused["limit_name"], refused["retry_after_ms"], refused["state_remaining"]) == (
        "nano_usd_per_month",
        1000,
        200,
    )
    await clockwork.settle(NOW_US, "a", cost_nano_usd=100)
    assert (await clockwork.hold(NOW_US, user_id, cost_nano_usd=901))["state_remaining"] == 900
    assert (await clockwork.hold(NOW_US, user_id, cost_nano_usd=900))["verdict"] == "held"


async def test_debt_blocks_calls_that_cost_until_the_month_is_over_and_no_others(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, nano_usd_per_month=1000)
    now_us = microseconds(datetime(2027, 2, 28, 23, 0, tzinfo=UTC))
    await clockwork.hold(now_us, user_id, request_id="a", cost_nano_usd=1000)
    await clockwork.settle(now_us, "a", cost_nano_usd=1500)
    refused = await clockwork.hold(now_us, user_id, cost_nano_usd=1)
    assert (refused["verdict"], refused["state_remaining"], refused["retry_after_ms"]) == ("refused", 0, 3_600_000)
    assert (await clockwork.hold(now_us, user_id, cost_nano_usd=0))["verdict"] == "held"
    assert (await clockwork.hold(now_us + 3600 * SECOND_US, user_id, cost_nano_usd=1))["verdict"] == "held"


async def test_a_hold_across_midnight_of_the_first_is_paid_by_the_month_it_ends_in(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, nano_usd_per_month=1000)
    december = microseconds(datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC))
    january = december + SECOND_US
    await clockwork.hold(december, user_id, request_id="done", cost_nano_usd=400)
    await clockwork.settle(december, "done", cost_nano_usd=400)
    await clockwork.hold(december, user_id, request_id="across", cost_nano_usd=600)
    assert (await clockwork.hold(december, user_id, cost_nano_usd=1))["verdict"] == "refused"
    # what is held may be spent in January, so January has that much less until it is settled
    assert (await clockwork.hold(january, user_id, cost_nano_usd=500))["verdict"] == "refused"
    assert (await clockwork.hold(january, user_id, cost_nano_usd=400))["verdict"] == "held"
    await clockwork.settle(january, "across", cost_nano_usd=50)
    meter = await clockwork.meter(user_id)
    assert (str(meter["month"]), meter["month_nano_usd"], meter["held_nano_usd"]) == ("2028-01-01", 50, 400)


async def test_a_clock_that_steps_back_over_the_first_does_not_forget_the_month(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, nano_usd_per_month=1000)
    january = microseconds(datetime(2028, 1, 1, tzinfo=UTC))
    await clockwork.hold(january, user_id, request_id="a", cost_nano_usd=1000)
    await clockwork.settle(january, "a", cost_nano_usd=1000)
    assert (await clockwork.hold(january - SECOND_US, user_id, cost_nano_usd=1))["verdict"] == "refused"
    assert (await clockwork.hold(january, user_id, cost_nano_usd=1))["verdict"] == "refused"


def microseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND_US
