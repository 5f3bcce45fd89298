"""The service's own door into PostgreSQL: a pool of asyncpg connections that fails fast, and in our own words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import asyncpg

from core.errors import ButtressError, Conflict, InternalFault, Unavailable
from core.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

# Parts of a deadline, so that what takes too long is given up a little before whoever waits is told so.
_CONNECTING: Final = 0.85
_ACQUIRING: Final = 0.95  # a free connection, or a new one: covers connecting
_ANSWERING: Final = 0.95
_IN_THE_SERVER: Final = 0.85  # it gives up first: cheaper than a cancel over a second connection
IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 10_000
SUPABASE_TRANSACTION_POOLER_PORT: Final = 6543

if TYPE_CHECKING:
    from core.settings import Settings

    _Pool = asyncpg.Pool[asyncpg.Record]
else:
    _Pool = asyncpg.Pool  # generic in its stubs only

_RAISED_BY_DATABASE: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError and every refused, reset or unresolvable connection
)
# How asyncpg's InterfaceError, which has no code, says that the connection or the pool has ended. Nobody here keeps a
# connection that was given back: one that is said to be "back" was taken, because the server closed it.
_SAYS_IT_IS_LOST: Final = ("closed", "closing", "released back to the pool")
# SQLSTATE classes and codes (PostgreSQL manual, appendix A) after which the same call may succeed unchanged.
_UNAVAILABLE_CLASSES: Final = frozenset({"08", "53", "57", "28", "3D", "58"})
_UNAVAILABLE_CODES: Final = frozenset({"25006", "25P03", "25P04", "55P03"})
_CONFLICT_CODES: Final = frozenset({"40001", "40P01", "23505", "23503", "23P01"})

ATTEMPTS: Final = 3
# Nothing has happened, or the connection ended before it could be said what.
_WORTH_REPEATING: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,  # the connection was closed meanwhile …
    asyncpg.InternalClientError,  # … or the server's farewell was read when an answer was expected
    ConnectionError,
)


class ServicePool(_Pool):
    """asyncpg's pool, except that waiting for a connection ends, unless the caller names a time, before `deadline_s`.

    `deadline_s`: by when whoever asks through it is to have heard, if only that nobody answers.
    """

    __slots__ = ("deadline_s",)

    deadline_s: float

    @property
    def unhurried_s(self) -> float:
        """How long that may take which nobody waits for."""
        return 2 * self.deadline_s

    def acquire(self, *, timeout: float | None = None) -> asyncpg.pool.PoolAcquireContext[asyncpg.Record]:
        return super().acquire(timeout=self.deadline_s * _ACQUIRING if timeout is None else timeout)


@asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    name: str,
    deadline_s: float,
    min_size: int = 1,
    max_size: int = 10,
    transaction_pooler: bool | None = None,
) -> AsyncGenerator[ServicePool]:
    """Inside: a pool that keeps no session state, with `min_size` connections unless PostgreSQL is out of reach.

    Opening never fails for an outage: the service starts, answers 503, and recovers by itself when PostgreSQL does.
    Connections are handed on as they are (no reset, which would cost a round trip each): whoever uses one may only
    `set local` and take `pg_advisory_xact_lock`; an open transaction is rolled back. `name` shows in pg_stat_activity.
    Connecting, waiting for a connection and a statement each end a little before `deadline_s`.
    `transaction_pooler` (by default: port 6543) gives up prepared statements and start-up settings, which such a
    pooler does not keep; the role's own `statement_timeout` holds then.
    """
    if transaction_pooler is None:
        transaction_pooler = urlsplit(dsn).port == SUPABASE_TRANSACTION_POOLER_PORT
    pool = ServicePool(
        dsn,
        min_size=0,
        max_size=max_size,
        max_queries=1_000_000,
        max_inactive_connection_lifetime=300.0,
        reset=_keep_as_it_is,
        loop=asyncio.get_running_loop(),
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
        timeout=deadline_s * _CONNECTING,
        command_timeout=deadline_s * _ANSWERING,
        statement_cache_size=0 if transaction_pooler else 200,
        server_settings={"application_name": name} if transaction_pooler else _server_settings(name, deadline_s),
    )
    pool.deadline_s = deadline_s
    await pool
    try:
        await _warm_up(pool, min(min_size, max_size))
        yield pool
    finally:
        await close_pool(pool)


async def close_pool(pool: asyncpg.Pool[asyncpg.Record], *, timeout_s: float = 1.0) -> None:
    """Every connection is closed: politely within `timeout_s`, forcibly after."""
    try:
        async with asyncio.timeout(timeout_s):
            await pool.close()
    except TimeoutError:
        pool.terminate()


def service_pool(settings: Settings, *, name: str, max_size: int) -> AbstractAsyncContextManager[ServicePool]:
    """As `open_pool`, for the service's own login and with the patience that its settings name."""
    url, deadline_s = settings.gateway_database_url.get_secret_value(), settings.database_deadline_s
    return open_pool(url, name=name, deadline_s=deadline_s, max_size=max_size)


@asynccontextmanager
async def lend(pool: asyncpg.Pool[asyncpg.Record]) -> AsyncGenerator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
    """A connection inside the block, given back after it.

    After a failure nobody waits for that: a statement that was cut off may take a while to be cancelled, and a caller
    who is cancelled meanwhile would leave asyncpg's complaint about it to the event loop.
    """
    connection = await pool.acquire()
    try:
        yield connection
    except BaseException:
        giving_back = asyncio.get_running_loop().create_task(pool.release(connection))
        _given_back_later.add(giving_back)
        giving_back.add_done_callback(_given_back)
        raise
    await pool.release(connection)


async def fetch(pool: asyncpg.Pool[asyncpg.Record], query: str, *arguments: object) -> list[asyncpg.Record]:
    """What the statement answers. Raises: as `error_from_postgres`."""
    with database_errors():
        async with lend(pool) as connection:
            return list(await connection.fetch(query, *arguments))


async def fetch_repeatable(
    pool: asyncpg.Pool[asyncpg.Record], query: str, *arguments: object, given_up: Callable[[], bool] = lambda: False
) -> list[asyncpg.Record]:
    """What a statement answers that may be sent twice: it reads, or recognises what it has done already.

    Sent again after a conflict or a lost connection, at most ATTEMPTS times and not when `given_up`.
    Raises: as `error_from_postgres`.
    """
    attempt = 1
    while True:
        try:
            return await fetch(pool, query, *arguments)
        except ButtressError as error:
            if attempt == ATTEMPTS or given_up() or not isinstance(error.__cause__, _WORTH_REPEATING):
                raise
        await asyncio.sleep(random.uniform(0.005, 0.05) * attempt)  # noqa: S311 (jitter)
        attempt += 1


_given_back_later: set[asyncio.Task[None]] = set()  # the event loop itself holds tasks weakly


def _given_back(task: asyncio.Task[None]) -> None:
    _given_back_later.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("connection_given_up", reason=type(error).__name__)  # asyncpg has closed it, and opens another


async def within(timeout_s: float, work: Coroutine[None, None, T]) -> T:
    """What the work gives. Raises: TimeoutError after so long, and what the work raises.

    In a task of its own: asyncpg waits for a frozen server even while it is being cancelled, and no caller may. Work
    that is given up, for the time or because its caller was cancelled, ends when it can, and nobody hears of it.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    finally:
        if not task.done():
            task.add_done_callback(lambda late: late.cancelled() or late.exception())
            task.cancel()
    if not done:
        raise TimeoutError
    return task.result()


class database_errors:  # noqa: N801 (a context manager, used like a function)
    """Whatever asyncpg raises inside leaves as one of our errors, with the original as its cause.

    `with database_errors(): row = await pool.fetchrow(…)`
    """

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, _RAISED_BY_DATABASE):
            raise error_from_postgres(error) from error


def error_from_postgres(error: BaseException) -> ButtressError:
    """Our error for what asyncpg, the network or a timeout raised: Unavailable, Conflict, or our own fault."""
    if isinstance(error, asyncpg.PostgresError):
        return _error_from_sqlstate(error.sqlstate or "")
    if isinstance(error, asyncpg.DataError | asyncpg.ClientConfigurationError):
        return InternalFault()
    if isinstance(error, asyncpg.InterfaceError) and not any(words in str(error) for words in _SAYS_IT_IS_LOST):
        return InternalFault()  # misuse
    return _database_unavailable()


def _error_from_sqlstate(code: str) -> ButtressError:
    if code[:2] in _UNAVAILABLE_CLASSES or code in _UNAVAILABLE_CODES:
        return _database_unavailable()
    if code in _CONFLICT_CODES:
        return Conflict()
    return InternalFault()


def _database_unavailable() -> Unavailable:
    return Unavailable("The database cannot be reached right now. Retry shortly.", code="database_unavailable")


def _server_settings(name: str, deadline_s: float) -> dict[str, str]:
    in_the_server_ms = str(round(deadline_s * _IN_THE_SERVER * 1000))
    return {
        "application_name": name,
        "jit": "off",  # compiling a plan costs more than any statement of ours runs
        "timezone": "UTC",
        "statement_timeout": in_the_server_ms,
        "lock_timeout": in_the_server_ms,  # else the role's own 2 s, however long the statement may take
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
    }


async def _keep_as_it_is(_connection: object) -> None:
    """Instead of asyncpg's reset, which costs a second round trip (docs/decisions/0043)."""


async def _warm_up(pool: ServicePool, size: int) -> None:
    held: list[Any] = []  # asyncpg's stubs disagree with themselves about what acquire() gives
    try:
        with database_errors():
            for _ in range(size):
                held.append(await pool.acquire())  # noqa: PERF401
    except ButtressError as error:
        log.warning("database_out_of_reach_at_start", reason=repr(error.__cause__))
    finally:
        for connection in held:
            await pool.release(connection)
