"""PostgresLedger over a real pool as gateway_service: the whole life of a call, and every refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from core.errors import InternalFault, Unavailable
from core.postgres import ServicePool
from llm_gateway.accounting import TokenCounts
from llm_gateway.limits import postgres
from llm_gateway.limits.ledger import (
    CallTooLarge,
    DuplicateCall,
    Hold,
    HoldRequest,
    LimitExceeded,
    LimitState,
    UnknownCaller,
    Usage,
)
from llm_gateway.limits.postgres import PostgresLedger
from tests.support.ledger import TestLimits, new_user, set_limits
from tests.support.ledger_postgres_store import PostgresStore
from tests.support.pools import AS_IN_SERVICE_S, asked_until_it_answers, pool_on
from tests.support.stack import RunningStack

USAGE = Usage(
    counts=TokenCounts(input=100, cached_input=20, output=30),
    cost_nano_usd=4_000,
    outcome="client_gone",
    estimated=True,
    deployment="test/model#1",
)


@pytest.fixture
async def pool(stack: RunningStack) -> AsyncIterator[ServicePool]:
    async with pool_on(stack.gateway_database_url, name="test-ledger", max_size=4) as pool:
        yield pool


@pytest.fixture
async def pool_in_service(stack: RunningStack) -> AsyncIterator[ServicePool]:
    """Gives up when one in production does; several connections are open already."""
    async with pool_on(stack.gateway_database_url, deadline_s=AS_IN_SERVICE_S, min_size=4, max_size=4) as pool:
        yield pool


@pytest.fixture
async def hasty_pool(stack: RunningStack) -> AsyncIterator[ServicePool]:
    """For who is to be given up."""
    async with pool_on(stack.gateway_database_url, deadline_s=0.2, max_size=2) as pool:
        yield pool


@pytest.fixture
def ledger(pool: ServicePool) -> PostgresLedger:
    return PostgresLedger(pool)


@pytest.fixture
async def alone(ledger_database: PostgresStore) -> AsyncIterator[PostgresLedger]:
    """In a database in which no gateway reaps calls and keeps the books meanwhile."""
    await ledger_database.clear()
    async with pool_on(ledger_database.url) as pool:
        yield PostgresLedger(pool)


def a_call(user_id: UUID, *, tokens: int = 1000, cost_nano_usd: int = 50_000, lease_s: float = 60) -> HoldRequest:
    return HoldRequest(uuid4().hex, user_id, "test/model", tokens, cost_nano_usd, lease_s, workspace_id=uuid4())


async def test_a_call_is_held_settled_and_written_down(database: asyncpg.Connection, ledger: PostgresLedger) -> None:
    user_id = await new_user(database, TestLimits(60, 6000, 10, 5_000_000))
    request = a_call(user_id)
    hold = await ledger.hold(request)
    assert hold.request_id == request.request_id
    assert (hold.requests, hold.tokens) == (LimitState(60, 59, 1.0), LimitState(6000, 5000, 10.0))

    await ledger.settle(request.request_id, USAGE)
    await ledger.settle(request.request_id, USAGE)  # its answer may have been lost
    [row] = await database.fetch("select * from gateway.usage where request_id = $1", request.request_id)
    assert (row["user_id"], row["workspace_id"], row["model"]) == (user_id, request.workspace_id, "test/model")
    assert (row["input_tokens"], row["cached_input_tokens"], row["output_tokens"]) == (100, 20, 30)
    assert (row["cost_nano_usd"], row["held_nano_usd"], row["held_tokens"]) == (4_000, 50_000, 1000)
    assert (row["state"], row["outcome"], row["estimated"]) == ("settled", "client_gone", True)
    assert (row["deployment"], row["settled_at"] > row["held_at"]) == ("test/model#1", True)


async def test_a_call_is_one_statement_before_it_and_one_after_whatever_limits_it_has(
    database: asyncpg.Connection, stack: RunningStack
) -> None:
    user_id = await new_user(database, TestLimits(60, 6000, 10, 5_000_000))
    asked: list[str] = []
    async with pool_on(stack.gateway_database_url, max_size=1) as pool:
        ledger = PostgresLedger(pool)
        first = replace(a_call(user_id), key_id=uuid4())
        for _ in range(2):  # a connection learns the types of its arguments once, and subjects have a meter once
            asked.clear()
            request = replace(first, request_id=uuid4().hex)
            await ledger.hold(request)
            await ledger.settle(request.request_id, USAGE)
            async with pool.acquire() as connection:
                connection.add_query_logger(lambda query: asked.append(query.query.partition("(")[0]))
    assert asked == ["select * from gateway.hold_one", "select gateway.finish_one"]


async def test_refusals_arrive_as_what_they_are(database: asyncpg.Connection, ledger: PostgresLedger) -> None:
    user_id = await new_user(database, TestLimits(calls_in_flight=1, tokens_per_minute=1000))
    request = a_call(user_id)
    await ledger.hold(request)
    with pytest.raises(LimitExceeded) as refusal:
        await ledger.hold(a_call(user_id, tokens=0))
    assert (refusal.value.limit_name, refusal.value.retry_after_s) == ("calls_in_flight", 1.0)
    with pytest.raises(CallTooLarge):
        await ledger.hold(a_call(user_id, tokens=1001))
    await ledger.void(request.request_id)
    with pytest.raises(DuplicateCall):
        await ledger.hold(request)
    with pytest.raises(UnknownCaller):
        await ledger.hold(a_call(uuid4()))


async def test_renew_says_whether_there_is_still_a_hold(database: asyncpg.Connection, ledger: PostgresLedger) -> None:
    request = a_call(await new_user(database, TestLimits()), lease_s=60)
    await ledger.hold(request)
    assert await ledger.renew(request.request_id, 600)
    lease_s = await database.fetchval(
        "select extract(epoch from lease_expires_at - now()) from gateway.holds where request_id = $1",
        request.request_id,
    )
    assert 500 < lease_s <= 600
    await ledger.void(request.request_id)
    assert not await ledger.renew(request.request_id, 600)


async def test_reaped_calls_are_counted_and_a_late_settlement_changes_nothing(
    ledger_database: PostgresStore, alone: PostgresLedger
) -> None:
    database = ledger_database.connection
    user_id = await new_user(database, TestLimits())
    requests = [a_call(user_id) for _ in range(3)]
    for request in requests:
        await alone.hold(request)
    await let_leases_run_out(database, user_id)
    assert await alone.reap() == 3
    await alone.settle(requests[0].request_id, USAGE)
    rows = await database.fetch("select state, cost_nano_usd from gateway.usage where user_id = $1", user_id)
    assert [tuple(row) for row in rows] == [("expired", 50_000)] * 3


async def test_what_the_database_cannot_accept_is_our_fault_and_not_an_outage(
    database: asyncpg.Connection, ledger: PostgresLedger
) -> None:
    with pytest.raises(InternalFault):
        await ledger.hold(a_call(await new_user(database, TestLimits()), tokens=-1))


async def test_a_conflict_between_transactions_is_tried_again(
    database: asyncpg.Connection, ledger: PostgresLedger
) -> None:
    """The database is made to fail the first settlement of the call as PostgreSQL does when it breaks a deadlock."""
    user_id = await new_user(database, TestLimits())
    request = a_call(user_id)
    await ledger.hold(request)
    await database.execute("create sequence private.conflicts")
    await database.execute(
        f"""
        create function private.conflict_once() returns trigger language plpgsql security definer as $$
        begin
            -- a sequence is the one thing that a rollback leaves as it was
            if new.user_id = '{user_id}' and nextval('private.conflicts') = 1 then
                raise exception 'deadlock detected' using errcode = 'deadlock_detected';
            end if;
            return new;
        end $$
        """
    )
    await database.execute(
        "create trigger conflict_once before insert on gateway.usage"
        " for each row execute function private.conflict_once()"
    )
    try:
        await ledger.settle(request.request_id, USAGE)
    finally:
        await database.execute("drop function private.conflict_once() cascade; drop sequence private.conflicts")
    assert await database.fetchval("select count(*) from gateway.usage where user_id = $1", user_id) == 1


async def test_a_locked_meter_is_waited_for_a_second_and_no_longer(
    database: asyncpg.Connection, pool: ServicePool, pool_in_service: ServicePool
) -> None:
    user_id = await new_user(database, TestLimits())
    await PostgresLedger(pool).hold(a_call(user_id))
    async with database.transaction():
        await database.execute("select from gateway.meters where subject_id = $1 for update", user_id)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable) as refusal:
            await PostgresLedger(pool_in_service).hold(a_call(user_id))
        assert asyncio.get_running_loop().time() - begun < 5  # 1 s, and what a busy machine adds
    assert (refusal.value.status, refusal.value.code) == (503, "ledger_unavailable")
    assert refusal.value.retry_after_s == 1.0


async def test_a_short_deadline_holds_whatever_is_asked(
    database: asyncpg.Connection, hasty_pool: ServicePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "UNDO_AFTER_S", (0.0, 0.1, 0.5, 5.0))
    user_id = await new_user(database, TestLimits())
    ledger = PostgresLedger(hasty_pool)
    async with database.transaction():
        await database.execute("lock table gateway.meters, gateway.holds")
        for step in (ledger.hold(a_call(user_id)), ledger.renew("nobody's", 60)):
            with pytest.raises(Unavailable):
                await step
        await nothing_is_asked(hasty_pool)
    await ledger.aclose()
    assert await database.fetchval("select count(*) from gateway.holds where user_id = $1", user_id) == 0


async def test_waiting_for_a_connection_and_then_for_the_statement_has_one_deadline(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    async with pool_on(stack.gateway_database_url, deadline_s=3.0, max_size=1) as pool, database.transaction():
        await database.execute("lock table gateway.holds")
        async with pool.acquire():
            asking = asyncio.create_task(PostgresLedger(pool).renew("nobody's", 60))
            # one may wait so long for a connection, and then so long for the statement that both are too long
            await asyncio.sleep(0.8)
        with pytest.raises(Unavailable) as outage:
            await asking
    assert isinstance(outage.value.__cause__, TimeoutError)


async def test_closing_leaves_a_lost_hold_to_its_lease_where_the_database_does_not_answer(
    database: asyncpg.Connection, hasty_pool: ServicePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "UNDO_AFTER_S", (3600.0,))
    user_id = await new_user(database, TestLimits())
    ledger = PostgresLedger(hasty_pool)
    async with database.transaction():
        await database.execute("lock table gateway.meters, gateway.holds")
        with pytest.raises(Unavailable):
            await ledger.hold(a_call(user_id))
        with capture_logs() as logged:
            await asyncio.wait_for(ledger.aclose(), 30)
    # that a connection was given up is not said by the ledger, and only where its end came late
    said = [line["event"] for line in logged if line["event"] != "connection_given_up"]
    assert said == ["lost_hold_left_to_its_lease"]


async def test_closing_takes_no_longer_where_the_database_may(
    stack: RunningStack, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "UNDO_AT_CLOSE_S", 0.2)
    user_id = await new_user(database, TestLimits())
    async with pool_on(stack.gateway_database_url, name="test-ledger", deadline_s=1000.0) as pool:
        ledger = PostgresLedger(pool)
        async with database.transaction():
            await database.execute("lock table gateway.meters, gateway.holds")
            await lose_a_hold(ledger, database, user_id)
            await asyncio.wait_for(ledger.aclose(), 30)


async def test_a_hold_that_was_cancelled_does_not_stay(
    database: asyncpg.Connection, pool: ServicePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hangs up while the database is at it: at the lock, before, or after, nothing stays charged."""
    monkeypatch.setattr(postgres, "UNDO_AFTER_S", (0.0, 0.1, 0.5, 5.0))
    user_id = await new_user(database, TestLimits())
    ledger = PostgresLedger(pool)
    await ledger.hold(a_call(user_id))
    for patience_s in (0.0, 0.0005, 0.001, 0.002, 0.004):
        task = asyncio.create_task(ledger.hold(a_call(user_id)))
        await asyncio.sleep(patience_s)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():  # it was faster than us
            await ledger.void(task.result().request_id)
    await ledger.aclose()
    assert await database.fetchval("select in_flight from gateway.meters where subject_id = $1", user_id) == 1


async def test_closing_gives_a_lost_hold_one_more_try_at_once(
    database: asyncpg.Connection, stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "UNDO_AFTER_S", (3600.0,))
    user_id = await new_user(database, TestLimits())
    async with pool_on(stack.gateway_database_url, name="test-ledger", deadline_s=2.0) as pool:
        ledger = PostgresLedger(pool)
        async with database.transaction():
            await database.execute("lock table gateway.meters")
            await lose_a_hold(ledger, database, user_id)
        await asyncio.wait_for(ledger.aclose(), 30)
    assert await database.fetchval("select count(*) from gateway.holds where user_id = $1", user_id) == 0


@pytest.mark.parametrize("most_undoing", [0, 1000], ids=["too many to look for", "looked for and not found"])
async def test_a_hold_that_was_never_made_ends_the_search_for_it(
    database: asyncpg.Connection, hasty_pool: ServicePool, monkeypatch: pytest.MonkeyPatch, most_undoing: int
) -> None:
    monkeypatch.setattr(postgres, "MOST_UNDOING", most_undoing)
    monkeypatch.setattr(postgres, "UNDO_AFTER_S", (0.0, 0.0))
    user_id = await new_user(database, TestLimits())
    ledger = PostgresLedger(hasty_pool)
    async with database.transaction():
        await database.execute("lock table gateway.meters")
        with pytest.raises(Unavailable):
            await ledger.hold(a_call(user_id))
        await nothing_is_asked(hasty_pool)
    await ledger.aclose()
    assert await database.fetchval("select count(*) from gateway.holds where user_id = $1", user_id) == 0
    assert await database.fetchval("select count(*) from gateway.usage where user_id = $1", user_id) == 0


async def test_calls_settle_also_when_more_run_than_are_remembered(
    database: asyncpg.Connection, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "MOST_CALLS_REMEMBERED", 1)
    user_id = await new_user(database, TestLimits())
    requests = [a_call(user_id) for _ in range(3)]
    for request in requests:
        await ledger.hold(request)
    for request in requests:
        await ledger.settle(request.request_id, USAGE)
    assert await database.fetchval("select in_flight from gateway.meters where subject_id = $1", user_id) == 0


async def test_calls_at_once_go_together_and_one_that_cannot_be_accepted_fails_alone(
    database: asyncpg.Connection, ledger: PostgresLedger
) -> None:
    user_id = await new_user(database, TestLimits())
    good = [a_call(user_id) for _ in range(10)]
    poison = [
        replace(a_call(user_id), model="nul\0byte"),
        replace(a_call(user_id), tokens=2**70),
        a_call(user_id, tokens=-1),
        replace(a_call(user_id), request_id="\ud800"),
    ]
    answers = await asyncio.gather(
        *(ledger.hold(request) for request in (*good[:5], *poison, *good[5:])),
        ledger.settle("\0", USAGE),
        return_exceptions=True,
    )
    failures = answers[5:9] + answers[-1:]
    assert all(isinstance(failure, InternalFault) for failure in failures), failures
    assert [answer.request_id for answer in answers if isinstance(answer, Hold)] == [call.request_id for call in good]
    await asyncio.gather(
        *(ledger.settle(request.request_id, USAGE) for request in good),
        return_exceptions=False,
    )
    assert await database.fetchval("select in_flight from gateway.meters where subject_id = $1", user_id) == 0


async def test_who_calls_one_after_the_other_is_not_refused_for_a_settlement_still_on_its_way(
    database: asyncpg.Connection, ledger: PostgresLedger
) -> None:
    """Several such callers with a key each, whose one call at a time is their own limit: all of one user."""
    user_id = await new_user(database, TestLimits())
    keys = [uuid4() for _ in range(5)]
    for key_id in keys:
        await set_limits(database, key_id, TestLimits(calls_in_flight=1), scope="key")
    settlements: list[asyncio.Task[None]] = []

    async def call_on(key_id: UUID) -> None:
        for _ in range(12):
            request = replace(a_call(user_id), key_id=key_id)
            await ledger.hold(request)
            settlements.append(asyncio.create_task(ledger.settle(request.request_id, USAGE)))
            await asyncio.sleep(0)  # the task has begun: as when an answer is sent to the client before the books

    await asyncio.gather(*(call_on(key_id) for key_id in keys))
    await asyncio.gather(*settlements)
    assert await database.fetchval("select count(*) from gateway.usage where user_id = $1", user_id) == 60


async def test_settlements_do_not_wait_for_new_calls_that_are_stuck(
    database: asyncpg.Connection, pool: ServicePool
) -> None:
    users = [await new_user(database, TestLimits()) for _ in range(3)]
    ledger = PostgresLedger(pool)
    request = a_call(users[0])
    await ledger.hold(request)
    for user_id in users[1:]:
        await ledger.hold(a_call(user_id))
    async with database.transaction():
        await database.execute("select from gateway.meters where subject_id = any ($1) for update", users[1:])
        stuck = []
        for user_id in users[1:]:
            stuck.append(asyncio.create_task(ledger.hold(a_call(user_id))))
            await asyncio.sleep(0.01)  # not together: each takes a lane
        await ledger.settle(request.request_id, USAGE)
        assert not any(task.done() for task in stuck)
    await asyncio.gather(*stuck, return_exceptions=True)
    await ledger.aclose()


async def test_of_calls_in_one_statement_those_that_were_given_up_meanwhile_do_not_stay(
    database: asyncpg.Connection, pool: ServicePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "UNDO_AFTER_S", (0.0, 0.1, 0.5, 5.0))
    user_id = await new_user(database, TestLimits())
    ledger = PostgresLedger(pool)
    await ledger.hold(a_call(user_id))
    async with database.transaction():
        await database.execute("select from gateway.meters where subject_id = $1 for update", user_id)
        tasks = [asyncio.create_task(ledger.hold(a_call(user_id))) for _ in range(6)]
        await wait_for_a_waiting_statement(database)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks[::2])
    assert [(await task).request_id is not None for task in tasks[1::2]] == [True] * 3
    await ledger.aclose()
    assert await database.fetchval("select in_flight from gateway.meters where subject_id = $1", user_id) == 4


async def test_a_connection_that_is_killed_under_a_batch_loses_and_doubles_nothing(
    database: asyncpg.Connection, ledger: PostgresLedger
) -> None:
    user_id = await new_user(database, TestLimits())
    done, new = [a_call(user_id) for _ in range(5)], [a_call(user_id) for _ in range(5)]
    for request in done:
        await ledger.hold(request)
    async with database.transaction():
        await database.execute("select from gateway.meters where subject_id = $1 for update", user_id)
        work = [asyncio.create_task(ledger.settle(request.request_id, USAGE)) for request in done]
        work += [asyncio.create_task(ledger.hold(request)) for request in new]  # type: ignore[arg-type]
        await wait_for_a_waiting_statement(database)
        killed = await database.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where application_name = 'test-ledger' and wait_event_type = 'Lock'"
        )
        assert killed >= 1
    await asyncio.gather(*work)
    assert await database.fetchval("select count(*) from gateway.usage where user_id = $1", user_id) == 5
    assert await database.fetchval("select in_flight from gateway.meters where subject_id = $1", user_id) == 5


async def test_upkeep_makes_room_and_says_nothing_when_there_is_nothing_to_do(
    ledger_database: PostgresStore, alone: PostgresLedger
) -> None:
    await asyncio.gather(alone.upkeep(), alone.upkeep())
    await alone.upkeep()
    days = await ledger_database.connection.fetchval(
        "select count(*) from pg_inherits where inhparent = 'gateway.usage'::regclass"
        " and inhrelid::regclass::text ~ '^gateway.usage_[0-9]{8}$'"
    )
    assert days >= 2


async def test_upkeep_forgets_the_meters_of_nobody(ledger_database: PostgresStore, alone: PostgresLedger) -> None:
    database, nobody = ledger_database.connection, uuid4()
    await database.execute("insert into gateway.meters (scope, subject_id) values ('workspace', $1)", nobody)
    await database.execute("update gateway.bookkeeping set meters_forgotten_on = null")
    await alone.upkeep()
    assert await database.fetchval("select count(*) from gateway.meters where subject_id = $1", nobody) == 0


async def nothing_is_asked(pool: ServicePool) -> None:
    """Every connection has come back: what was given up has ended in the database too, and cannot happen any more."""
    async with AsyncExitStack() as all_of_them:
        for _ in range(pool.get_max_size()):
            connection = await asked_until_it_answers(pool.acquire)
            all_of_them.push_async_callback(pool.release, connection)


async def lose_a_hold(ledger: PostgresLedger, database: asyncpg.Connection, user_id: UUID) -> None:
    """Its caller left while it waited for a lock."""
    task = asyncio.create_task(ledger.hold(a_call(user_id)))
    await wait_for_a_waiting_statement(database)
    task.cancel()
    await asyncio.wait({task})


async def wait_for_a_waiting_statement(database: asyncpg.Connection) -> None:
    """gateway_service waits for a lock."""
    waiting = (
        "select count(*) from pg_stat_activity where application_name = 'test-ledger' and wait_event_type = 'Lock'"
    )
    while not await database.fetchval(waiting):
        await database.execute("select pg_stat_clear_snapshot()")  # a transaction knows no connection made later
        await asyncio.sleep(0.005)


async def let_leases_run_out(database: asyncpg.Connection, user_id: UUID) -> None:
    await database.execute(
        "update gateway.holds set held_at = now() - interval '2 hours', lease_expires_at = now() - interval '1 hour'"
        " where user_id = $1",
        user_id,
    )
