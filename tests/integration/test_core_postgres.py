"""The pool against a real PostgreSQL: what goes wrong is said in our words, and soon."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from core.errors import ButtressError, Conflict, InternalFault, Unavailable
from core.postgres import close_pool, database_errors, error_from_postgres, lend
from tests.support import pools
from tests.support.eventually import fastest_of
from tests.support.freezing_proxy import freezing_proxy
from tests.support.pools import AS_IN_SERVICE_S, asked_until_it_answers
from tests.support.stack import RunningStack

SOON_S = 2.0  # a second is promised; the rest is for a machine that is busy with other things

pool_on = partial(pools.pool_on, name="core-test")
in_service = partial(pool_on, deadline_s=AS_IN_SERVICE_S)


def a_name() -> str:
    """One that no other pool has: the server sees a closed one for a moment yet."""
    return f"core-test-{uuid4().hex}"


async def refused_after_s(pool: asyncpg.Pool[asyncpg.Record], query: str = "select 1") -> float:
    """How long it took to say that the database cannot be reached."""
    started_s = time.monotonic()
    with pytest.raises(Unavailable), database_errors():
        await pool.fetchval(query)
    return time.monotonic() - started_s


async def test_a_pool_is_warm_and_shows_its_name(stack: RunningStack, database: asyncpg.Connection) -> None:
    async with pool_on(stack.gateway_database_url, name=(name := a_name()), min_size=3):
        found = await database.fetchval("select count(*) from pg_stat_activity where application_name = $1", name)
    assert found == 3


async def test_sessions_are_set_for_short_statements(stack: RunningStack) -> None:
    async with in_service(stack.gateway_database_url) as pool:
        row = await asked_until_it_answers(
            lambda: pool.fetchrow(
                "select current_setting('jit'), current_setting('timezone'), current_setting('statement_timeout'),"
                " current_user"
            )
        )
    assert tuple(row or ()) == ("off", "UTC", "808ms", "gateway_service")


async def test_who_is_far_from_the_database_gives_it_longer(stack: RunningStack) -> None:
    async with pool_on(stack.gateway_database_url, deadline_s=20) as pool:
        for limit in ("statement_timeout", "lock_timeout"):
            assert await pool.fetchval("select current_setting($1)", limit) == "17s", limit
        assert await pool.fetchval("select 1 from pg_sleep(1.2)") == 1


async def test_using_a_connection_costs_one_round_trip(stack: RunningStack, database: asyncpg.Connection) -> None:
    """asyncpg's own reset would leave `RESET ALL` as the connection's last statement."""
    async with pool_on(stack.gateway_database_url, name=(name := a_name()), max_size=1) as pool:
        await pool.fetchval("select 'mine'")
        last = await database.fetchval("select query from pg_stat_activity where application_name = $1", name)
    assert last == "select 'mine'"


async def test_an_open_transaction_is_rolled_back_when_its_connection_returns(stack: RunningStack) -> None:
    async with pool_on(stack.database_url, max_size=1) as pool:
        async with pool.acquire() as connection:
            await connection.execute("begin; create table public.core_test_left_behind ()")
        assert await pool.fetchval("select to_regclass('public.core_test_left_behind')") is None


async def test_a_database_that_is_down_is_unavailable_at_once_and_at_start() -> None:
    async def opened_and_refused_after_s() -> float:
        started_s = time.monotonic()
        async with in_service(nowhere) as pool:
            await refused_after_s(pool)
            return time.monotonic() - started_s

    nowhere = "postgresql://gateway_service:x@127.0.0.1:1/postgres"
    assert await fastest_of(opened_and_refused_after_s, enough_s=SOON_S) < SOON_S
    async with pool_on(nowhere) as pool:
        with pytest.raises(Unavailable) as outage, database_errors():
            await pool.fetchval("select 1")
    assert (outage.value.code, outage.value.retry_after_s) == ("database_unavailable", 1.0)
    assert isinstance(outage.value.__cause__, OSError)


async def test_a_database_that_accepts_and_says_nothing_is_given_up_within_a_second() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with in_service(f"postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable", min_size=0) as pool:
            assert await fastest_of(lambda: refused_after_s(pool), enough_s=SOON_S) < SOON_S


async def test_a_connection_that_falls_silent_is_given_up_within_two_seconds(stack: RunningStack) -> None:
    """A second for the statement, and one for the cancel that nobody hears either."""
    target = urlsplit(stack.gateway_database_url)

    async def frozen_and_refused_after_s() -> float:
        async with freezing_proxy(target.hostname or "", target.port or 0) as proxy:
            dsn = stack.gateway_database_url.replace(f":{target.port}/", f":{proxy.port}/")
            async with in_service(dsn, max_size=1) as pool:
                assert await asked_until_it_answers(lambda: pool.fetchval("select 1")) == 1
                proxy.freeze()
                return await refused_after_s(pool)

    assert await fastest_of(frozen_and_refused_after_s, enough_s=SOON_S + 1) < SOON_S + 1


async def test_a_caller_who_leaves_a_silent_connection_leaves_nothing_to_the_event_loop(stack: RunningStack) -> None:
    left_to_the_loop: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    target = urlsplit(stack.gateway_database_url)
    async with freezing_proxy(target.hostname or "", target.port or 0) as proxy:
        dsn = stack.gateway_database_url.replace(f":{target.port}/", f":{proxy.port}/")
        async with pool_on(dsn, max_size=1) as pool:
            assert await pool.fetchval("select 1") == 1
            proxy.freeze()
            loop.set_exception_handler(lambda _loop, context: left_to_the_loop.append(context))

            async def ask() -> None:
                async with lend(pool) as connection:
                    await connection.fetchval("select 1", timeout=0.05)

            with pytest.raises(TimeoutError):
                # cancelled again while asyncpg waits for the silent server to confirm that the statement is cancelled
                async with asyncio.timeout(0.2):
                    await ask()
    gc.collect()
    loop.set_exception_handler(before)
    assert left_to_the_loop == []


async def test_a_wrong_password_is_our_outage_not_the_callers_fault(stack: RunningStack) -> None:
    dsn = stack.gateway_database_url.replace(stack.secrets.gateway_service_password, "wrong")
    async with pool_on(dsn) as pool:
        with pytest.raises(Unavailable), database_errors():
            await pool.fetchval("select 1")


async def test_a_slow_statement_ends_within_a_second_and_the_connection_lives_on(stack: RunningStack) -> None:
    async with in_service(stack.gateway_database_url, max_size=1) as pool:
        before = await asked_until_it_answers(lambda: pool.fetchval("select pg_backend_pid()"))
        assert await fastest_of(lambda: refused_after_s(pool, "select pg_sleep(30)"), enough_s=SOON_S) < SOON_S
        assert await asked_until_it_answers(lambda: pool.fetchval("select pg_backend_pid()")) == before


async def test_an_exhausted_pool_is_unavailable_within_a_second(stack: RunningStack) -> None:
    async with in_service(stack.gateway_database_url, max_size=1) as pool:
        connection = await asked_until_it_answers(pool.acquire)
        assert await fastest_of(lambda: refused_after_s(pool), enough_s=SOON_S) < SOON_S
        await pool.release(connection)


async def test_a_connection_that_is_killed_between_two_statements_is_unavailable_once_and_then_replaced(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    killed = asyncio.Event()
    async with pool_on(stack.gateway_database_url, max_size=1) as pool:
        async with lend(pool) as connection:
            connection.add_termination_listener(lambda _connection: killed.set())
            await database.execute("select pg_terminate_backend($1)", connection.get_server_pid())
            await killed.wait()
            with pytest.raises(Unavailable), database_errors():
                await connection.fetchval("select 1")
        assert await pool.fetchval("select 1") == 1


async def test_a_connection_that_is_killed_unseen_is_unavailable_once_and_then_replaced(stack: RunningStack) -> None:
    async def kill(pid: int) -> None:
        database = await asyncpg.connect(stack.database_url)
        await database.execute("select pg_terminate_backend($1, 10000)", pid)
        await database.close()

    async with pool_on(stack.gateway_database_url, max_size=1) as pool:
        async with lend(pool) as connection:
            elsewhere = threading.Thread(target=asyncio.run, args=(kill(connection.get_server_pid()),))
            elsewhere.start()
            elsewhere.join()  # holds this event loop up, so that it sees the end only when it reads the next answer
            with pytest.raises(Unavailable), database_errors():
                await connection.fetchval("select 1")
        assert await pool.fetchval("select 1") == 1


async def test_it_works_without_prepared_statements_behind_a_transaction_pooler(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    async with pool_on(stack.gateway_database_url, transaction_pooler=True, max_size=1) as pool:
        for n in range(3):
            assert await pool.fetchval("select $1::int + 1", n) == n + 1
        async with pool.acquire() as connection:
            assert await connection.fetchval("select count(*) from pg_prepared_statements") == 0
        setting = await pool.fetchval("select source from pg_settings where name = 'statement_timeout'")
    assert setting != "client"  # a pooler refuses start-up settings it does not know


async def test_two_writers_who_cross_are_a_conflict(stack: RunningStack, database: asyncpg.Connection) -> None:
    await database.execute("create table public.core_test_rows (id int primary key, n int)")
    try:
        await database.execute("insert into public.core_test_rows values (1, 0), (2, 0)")
        async with pool_on(stack.database_url) as pool:
            both = asyncio.Barrier(2)
            crossing = (_crossing(pool, both, 1, 2), _crossing(pool, both, 2, 1))
            outcomes = await asyncio.gather(*crossing, return_exceptions=True)
            with pytest.raises(Conflict), database_errors():
                await pool.execute("insert into public.core_test_rows values (1, 0)")
    finally:
        await database.execute("drop table public.core_test_rows")
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [Conflict]  # the other one got through


async def test_our_own_mistakes_are_faults_not_outages(stack: RunningStack) -> None:
    async with pool_on(stack.gateway_database_url) as pool:
        for query, arguments in (
            ("select nonsense from nowhere", ()),
            ("select $1::int", ("text",)),
            ("select $1::int", ()),
            ("select * from auth.users", ()),
        ):
            with pytest.raises(InternalFault), database_errors():
                await pool.fetchval(query, *arguments)


async def test_a_closed_pool_is_unavailable(stack: RunningStack) -> None:
    async with pool_on(stack.gateway_database_url) as pool:
        pass
    with pytest.raises(Unavailable), database_errors():
        await pool.fetchval("select 1")


async def test_closing_does_not_wait_forever_for_who_holds_a_connection(stack: RunningStack) -> None:
    async with pool_on(stack.gateway_database_url) as pool:
        await pool.acquire()
        await close_pool(pool, timeout_s=0.05)
    assert pool.get_size() == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), Unavailable),
        (ConnectionResetError(), Unavailable),
        (OSError("no route"), Unavailable),
        (asyncpg.ConnectionDoesNotExistError(), Unavailable),
        (asyncpg.AdminShutdownError(), Unavailable),
        (asyncpg.CannotConnectNowError(), Unavailable),
        (asyncpg.TooManyConnectionsError(), Unavailable),
        (asyncpg.DiskFullError(), Unavailable),
        (asyncpg.ReadOnlySQLTransactionError(), Unavailable),
        (asyncpg.LockNotAvailableError(), Unavailable),
        (asyncpg.IdleInTransactionSessionTimeoutError(), Unavailable),  # whoever stood still in a transaction
        (asyncpg.QueryCanceledError(), Unavailable),
        (asyncpg.PostgresIOError(), Unavailable),
        (asyncpg.SerializationError(), Conflict),
        (asyncpg.DeadlockDetectedError(), Conflict),
        (asyncpg.UniqueViolationError(), Conflict),
        (asyncpg.CheckViolationError(), InternalFault),
        (asyncpg.UndefinedTableError(), InternalFault),
        (asyncpg.InsufficientPrivilegeError(), InternalFault),
        (asyncpg.InternalServerError(), InternalFault),
        (asyncpg.PostgresError(), InternalFault),
        (asyncpg.InterfaceError("pool is closing"), Unavailable),
        (asyncpg.InterfaceError("connection has been released back to the pool"), Unavailable),
        (asyncpg.InterfaceError("another operation is in progress"), InternalFault),
        (asyncpg.DataError("invalid input"), InternalFault),
        (asyncpg.ClientConfigurationError("bad dsn"), InternalFault),
        (asyncpg.InternalClientError("got result for unknown protocol state"), Unavailable),
    ],
)
def test_each_trouble_has_its_name(error: Exception, kind: type[ButtressError]) -> None:
    assert type(error_from_postgres(error)) is kind


def test_errors_of_others_pass_untouched() -> None:
    with pytest.raises(KeyError), database_errors():
        raise KeyError
    with pytest.raises(Conflict), database_errors():
        raise Conflict


async def _crossing(pool: asyncpg.Pool[asyncpg.Record], both: asyncio.Barrier, first: int, second: int) -> None:
    """Each has one row and wants the other's."""
    with database_errors():
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("set local deadlock_timeout = '10ms'")
            await connection.execute("update public.core_test_rows set n = n + 1 where id = $1", first)
            await both.wait()
            await connection.execute("update public.core_test_rows set n = n + 1 where id = $1", second)
