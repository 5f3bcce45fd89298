"""What is lost on the way to the database and back, and who dies meanwhile: nothing is charged twice, nothing leaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.errors import Unavailable
from core.postgres import ServicePool
from llm_gateway.accounting import TokenCounts
from llm_gateway.limits import postgres
from llm_gateway.limits.ledger import HoldRequest, Usage
from llm_gateway.limits.postgres import PostgresLedger
from tests.support.cut_proxy import CutProxy, cut_proxy
from tests.support.eventually import eventually
from tests.support.ledger import TestLimits, new_user
from tests.support.ledger_process import ledger_processes
from tests.support.pools import AS_IN_SERVICE_S, PATIENCE_S, pool_on
from tests.support.stack import RunningStack

USAGE = Usage(counts=TokenCounts(input=10, output=10), cost_nano_usd=700)
# Whoever does not give up by itself waits for ever.
A_SECOND_AND_A_BUSY_MACHINE_S = 12.0


@pytest.fixture
async def proxy(stack: RunningStack) -> AsyncIterator[CutProxy]:
    async with cut_proxy(stack.gateway_database_url) as proxy:
        yield proxy


def through(proxy: CutProxy, deadline_s: float) -> AbstractAsyncContextManager[ServicePool]:
    """One connection, which is open already."""
    return pool_on(proxy.url, name="test-ledger-faults", deadline_s=deadline_s, max_size=1)


@pytest.fixture
async def ledger(
    proxy: CutProxy, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresLedger]:
    """Looks for lost holds sooner than usual. Its connection is open, however long that took, and knows how to hold."""
    monkeypatch.setattr(postgres, "UNDO_AFTER_S", (0.05,) * 100)
    somebody = await new_user(database, TestLimits())
    async with through(proxy, AS_IN_SERVICE_S) as pool:
        ledger = PostgresLedger(pool)

        async def holds() -> bool:
            with suppress(Unavailable):
                await ledger.hold(a_call(somebody))
                return True
            return False

        await eventually(holds)
        yield ledger


@pytest.fixture
async def patient(proxy: CutProxy) -> AsyncIterator[PostgresLedger]:
    """Has time for a busy machine."""
    async with through(proxy, PATIENCE_S) as pool:
        yield PostgresLedger(pool)


@pytest.fixture
async def user_id(database: asyncpg.Connection) -> UUID:
    return await new_user(database, TestLimits())


def a_call(user_id: UUID) -> HoldRequest:
    return HoldRequest(uuid4().hex, user_id, "test/model", 1000, 1000, lease_s=60)


async def in_flight(database: asyncpg.Connection, user_id: UUID) -> int:
    """Read in one statement: a call may be ending meanwhile."""
    row = await database.fetchrow(
        "select (select coalesce(sum(in_flight), 0) from gateway.meters where subject_id = $1) as metered,"
        " (select count(*) from gateway.holds where user_id = $1) as held",
        user_id,
    )
    assert row is not None
    assert row["metered"] == row["held"]
    return int(row["held"])


async def test_a_hold_whose_answer_was_cut_off_is_asked_again_and_charged_once(
    database: asyncpg.Connection, proxy: CutProxy, patient: PostgresLedger, user_id: UUID
) -> None:
    await patient.hold(a_call(user_id))
    proxy.mode = "cut at the answer"
    request = a_call(user_id)
    hold = await patient.hold(request)
    assert proxy.lost.is_set()
    assert hold.request_id == request.request_id
    assert await in_flight(database, user_id) == 2


async def test_a_hold_whose_answer_never_comes_is_an_outage_within_a_second_and_does_not_stay(
    database: asyncpg.Connection, proxy: CutProxy, ledger: PostgresLedger, patient: PostgresLedger, user_id: UUID
) -> None:
    await patient.hold(a_call(user_id))
    proxy.mode = "swallow answers"
    begun = time.monotonic()
    with pytest.raises(Unavailable) as outage:
        await ledger.hold(a_call(user_id))
    assert time.monotonic() - begun < A_SECOND_AND_A_BUSY_MACHINE_S
    assert outage.value.code == "ledger_unavailable"
    proxy.lost.clear()
    await asyncio.wait_for(proxy.lost.wait(), 30)  # the first attempt to undo it is lost as well
    proxy.mode = "pass"
    query = "select state, cost_nano_usd from gateway.usage where user_id = $1"
    await until(lambda: is_not_empty(database, query, user_id))
    await ledger.aclose()
    assert [tuple(row) for row in await database.fetch(query, user_id)] == [("voided", 0)]
    assert await in_flight(database, user_id) == 1


async def test_whatever_else_is_asked_of_a_database_that_never_answers_is_an_outage_within_a_second(
    proxy: CutProxy, ledger: PostgresLedger, patient: PostgresLedger, user_id: UUID
) -> None:
    request = a_call(user_id)
    await patient.hold(request)
    proxy.mode = "swallow answers"
    for step in (ledger.reprice(request.request_id, 10, 10), ledger.renew(request.request_id, 60), ledger.reap()):
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            await step
        assert time.monotonic() - begun < A_SECOND_AND_A_BUSY_MACHINE_S


async def test_a_settlement_whose_answer_was_cut_off_is_written_once(
    database: asyncpg.Connection, proxy: CutProxy, patient: PostgresLedger, user_id: UUID
) -> None:
    request = a_call(user_id)
    await patient.hold(request)
    proxy.mode = "cut at the answer"
    await settle_as_the_gateway_does(patient, request.request_id)
    assert proxy.lost.is_set()
    rows = await database.fetch("select cost_nano_usd from gateway.usage where user_id = $1", user_id)
    assert [row["cost_nano_usd"] for row in rows] == [700]
    assert await in_flight(database, user_id) == 0


async def test_without_a_database_calls_are_refused_within_a_second_and_work_again_afterwards(
    database: asyncpg.Connection, proxy: CutProxy, ledger: PostgresLedger, patient: PostgresLedger, user_id: UUID
) -> None:
    request = a_call(user_id)
    await patient.hold(request)
    proxy.vanish()
    for step in (ledger.hold(a_call(user_id)), ledger.settle(request.request_id, USAGE), ledger.reap()):
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            await step
        assert time.monotonic() - begun < A_SECOND_AND_A_BUSY_MACHINE_S
    await proxy.listen()
    await settle_as_the_gateway_does(ledger, request.request_id)
    await until(lambda: in_flight_is(database, user_id, 0))
    spent = await database.fetchval("select month_nano_usd from gateway.meters where subject_id = $1", user_id)
    assert spent == 700


async def test_connections_ended_by_the_database_are_replaced_without_the_caller_noticing(
    database: asyncpg.Connection, patient: PostgresLedger, user_id: UUID
) -> None:
    for _ in range(3):
        request = a_call(user_id)
        await patient.hold(request)
        await database.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'test-ledger-faults'"
        )
        await patient.settle(request.request_id, USAGE)
    assert await in_flight(database, user_id) == 0


async def test_what_a_killed_process_held_is_charged_in_full_once_its_lease_has_run_out(
    stack: RunningStack, database: asyncpg.Connection, patient: PostgresLedger, user_id: UUID
) -> None:
    async with ledger_processes(stack.gateway_database_url, 1) as [process]:
        await process.begin(user_id, calls=5, tokens=100, cost_nano_usd=1000)
        held = (await process.result())["held"]
        process.process.kill()
        await process.process.wait()
    assert await in_flight(database, user_id) == 5
    await patient.reap()
    assert await in_flight(database, user_id) == 5, "a lease that still runs is not the reaper's"
    await database.execute(
        "update gateway.holds set held_at = now() - interval '2 hours', lease_expires_at = now() - interval '1 hour'"
        " where user_id = $1",
        user_id,
    )
    await patient.reap()
    await until(lambda: in_flight_is(database, user_id, 0))  # another gateway of this stack may be reaping them
    rows = await database.fetch("select * from gateway.usage where user_id = $1", user_id)
    assert sorted(row["request_id"] for row in rows) == sorted(held)
    assert {(row["state"], row["estimated"], row["cost_nano_usd"]) for row in rows} == {("expired", True, 1000)}
    meter = await database.fetchrow("select * from gateway.meters where subject_id = $1", user_id)
    assert meter is not None
    assert (meter["in_flight"], meter["held_nano_usd"], meter["month_nano_usd"]) == (0, 0, 5000)


async def settle_as_the_gateway_does(ledger: PostgresLedger, request_id: str) -> None:
    """Again after each outage, until the ledger has it."""
    for _ in range(100):
        try:
            return await ledger.settle(request_id, USAGE)
        except Unavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("the ledger was never there again")


async def in_flight_is(database: asyncpg.Connection, user_id: UUID, number: int) -> bool:
    return await in_flight(database, user_id) == number


async def is_not_empty(database: asyncpg.Connection, query: str, user_id: UUID) -> bool:
    return bool(await database.fetch(query, user_id))


async def until(condition: object) -> None:
    """It is so, within half a minute."""
    assert callable(condition)
    for _ in range(600):
        if await condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came to that")
