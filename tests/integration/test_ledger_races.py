"""Many at once, from two processes with a pool each: never one more than the limit, never one twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import DuplicateCall, HoldRequest, LimitExceeded, Usage
from llm_gateway.limits.postgres import PostgresLedger
from tests.support.ledger import TestLimits, new_user
from tests.support.ledger_process import ledger_processes
from tests.support.pools import pool_on
from tests.support.stack import RunningStack


@pytest.fixture
async def ledgers(stack: RunningStack) -> AsyncIterator[list[PostgresLedger]]:
    url = stack.gateway_database_url
    async with pool_on(url, max_size=8) as one, pool_on(url, max_size=8) as other:
        yield [PostgresLedger(one), PostgresLedger(other)]


async def race(stack: RunningStack, user_id: UUID, **order: object) -> tuple[list[str], dict[str, int]]:
    """100 calls from each of two processes at once: the ids held, and how many were refused by which limit."""
    async with ledger_processes(stack.gateway_database_url, 2) as processes:
        for process in processes:
            await process.begin(user_id, calls=100, **order)
        results = [await process.result() for process in processes]
    refused: dict[str, int] = {}
    for result in results:
        for name, number in result["refused"].items():
            refused[name] = refused.get(name, 0) + number
    return [request_id for result in results for request_id in result["held"]], refused


async def test_of_200_calls_at_once_exactly_50_run_at_a_time(stack: RunningStack, database: asyncpg.Connection) -> None:
    user_id = await new_user(database, TestLimits(calls_in_flight=50))
    held, refused = await race(stack, user_id)
    assert (len(held), refused) == (50, {"calls_in_flight": 150})


async def test_of_200_requests_at_once_exactly_50_pass_and_what_refills_meanwhile(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    user_id = await new_user(database, TestLimits(requests_per_minute=50))
    held, refused = await race(stack, user_id)
    took_s = float(
        await database.fetchval(
            "select extract(epoch from max(held_at) - min(held_at)) from gateway.holds where user_id = $1", user_id
        )
    )
    assert 50 <= len(held) <= 50 + took_s / 1.2
    assert refused == {"requests_per_minute": 200 - len(held)}


async def test_a_budget_is_never_passed_by_more_than_zero(stack: RunningStack, database: asyncpg.Connection) -> None:
    """Calls settle at their hold while others are still being held: money moves under everybody's feet."""
    user_id = await new_user(database, TestLimits(nano_usd_per_month=1_000_030))
    held, refused = await race(stack, user_id, cost_nano_usd=20_001, settle=True)
    spent = await database.fetchval("select sum(cost_nano_usd) from gateway.usage where user_id = $1", user_id)
    assert (len(held), spent) == (49, 49 * 20_001)
    assert refused == {"nano_usd_per_month": 151}
    meter = await database.fetchrow("select * from gateway.meters where subject_id = $1", user_id)
    assert meter is not None
    assert (meter["month_nano_usd"], meter["held_nano_usd"], meter["in_flight"]) == (spent, 0, 0)


async def test_a_users_first_calls_at_once_make_one_meter(
    database: asyncpg.Connection, ledgers: list[PostgresLedger]
) -> None:
    user_id = await new_user(database, TestLimits())
    await asyncio.gather(*(ledgers[number % 2].hold(a_call(user_id)) for number in range(16)))
    meters = await database.fetch("select in_flight from gateway.meters where subject_id = $1", user_id)
    assert [meter["in_flight"] for meter in meters] == [16]


async def test_of_many_holds_with_one_id_one_passes_and_is_charged(
    database: asyncpg.Connection, ledgers: list[PostgresLedger]
) -> None:
    users = [await new_user(database, TestLimits()) for _ in range(2)]
    request_id = uuid4().hex
    answers = await asyncio.gather(
        *(ledgers[number % 2].hold(a_call(users[number // 8], request_id)) for number in range(16)),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(refused) == 15
    assert all(isinstance(answer, DuplicateCall) for answer in refused)
    in_flight = await database.fetchval("select sum(in_flight) from gateway.meters where subject_id = any ($1)", users)
    assert in_flight == 1


@pytest.mark.parametrize("seed", range(5))
async def test_settle_void_and_reap_at_once_end_a_call_once(
    database: asyncpg.Connection, ledgers: list[PostgresLedger], seed: int
) -> None:
    user_id = await new_user(database, TestLimits())
    requests = [a_call(user_id) for _ in range(8)]
    for request in requests:
        await ledgers[0].hold(request)
    await database.execute(
        "update gateway.holds set held_at = now() - interval '2 hours', lease_expires_at = now() - interval '1 hour'"
        " where user_id = $1",
        user_id,
    )
    usage = Usage(counts=TokenCounts(input=1, output=2), cost_nano_usd=7)
    finishes = [ledger.settle(request.request_id, usage) for request in requests for ledger in ledgers]
    finishes += [ledger.void(request.request_id) for request in requests for ledger in ledgers]
    work = [
        *finishes,
        *(ledger.reap() for ledger in ledgers),
        *(ledger.renew(requests[0].request_id, 1) for ledger in ledgers),
    ]
    random.Random(seed).shuffle(work)
    await asyncio.gather(*work)
    rows = await database.fetch("select request_id, cost_nano_usd from gateway.usage where user_id = $1", user_id)
    assert sorted(row["request_id"] for row in rows) == sorted(request.request_id for request in requests)
    meter = await database.fetchrow("select * from gateway.meters where subject_id = $1", user_id)
    assert meter is not None
    assert (meter["in_flight"], meter["held_nano_usd"]) == (0, 0)
    assert meter["month_nano_usd"] == sum(row["cost_nano_usd"] for row in rows)


async def test_limits_hold_at_every_moment_while_calls_come_and_go(
    database: asyncpg.Connection, ledgers: list[PostgresLedger]
) -> None:
    """A sampler reads the meter, which is what everybody sees, while 16 callers hold and settle as fast as they can."""
    user_id = await new_user(database, TestLimits(1_000_000, 10**9, calls_in_flight=5, nano_usd_per_month=100_000))
    over: list[asyncpg.Record] = []
    done = asyncio.Event()

    async def call(number: int) -> None:
        for _ in range(15):
            request = a_call(user_id, cost_nano_usd=1000)
            try:
                await ledgers[number % 2].hold(request)
            except LimitExceeded:
                continue
            await ledgers[(number + 1) % 2].settle(
                request.request_id, Usage(counts=TokenCounts(input=1), cost_nano_usd=900)
            )

    async def sample() -> None:
        while not done.is_set():
            over.extend(
                await database.fetch(
                    "select * from gateway.meters where subject_id = $1"
                    " and (in_flight > 5 or month_nano_usd + held_nano_usd > 100000)",
                    user_id,
                )
            )

    sampler = asyncio.create_task(sample())
    await asyncio.gather(*(call(number) for number in range(16)))
    done.set()
    await sampler
    assert over == []
    settled = await database.fetchval("select count(*) from gateway.usage where user_id = $1", user_id)
    assert 0 < settled <= 111


def a_call(user_id: UUID, request_id: str | None = None, cost_nano_usd: int = 50) -> HoldRequest:
    return HoldRequest(request_id or uuid4().hex, user_id, "test/model", 100, cost_nano_usd, lease_s=60)
