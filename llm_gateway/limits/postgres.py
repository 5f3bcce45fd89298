"""The ledger in PostgreSQL: one function call a step (migrations/*_gateway_*.sql), within a second or not at all."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import asyncpg

from core.errors import ButtressError, InternalFault, Unavailable
from core.logging import get_logger
from core.postgres import database_errors, lend
from llm_gateway.limits.ledger import Hold, HoldRequest, Ledger, LimitState, Usage
from llm_gateway.limits.rules import Answer, hold_from_answer
from llm_gateway.limits.turns import Turns

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

log = get_logger(__name__)

DEADLINE_S: Final = 0.95
ATTEMPTS: Final = 3
# A hold whose answer was lost is looked for until no statement can be running any more that would still make it.
UNDO_AFTER_S: Final = (0.05, 1.0, 6.0, 30.0)
MOST_UNDOING: Final = 1000
# Statements about one user queue for the row of their meter. Past two at a time PostgreSQL only gets slower handing the
# lock on (measured: docs/decisions/0063), and one busy user would take every connection of the pool.
AT_ONCE_FOR_ONE_USER: Final = 2
MOST_CALLS_REMEMBERED: Final = 10_000

_HOLD: Final = "select * from gateway.hold($1, $2, $3, $4, $5, $6, $7, $8)"
_SETTLE: Final = "select gateway.settle($1, $2, $3, $4, $5, $6, $7, $8)"
_VOID: Final = "select gateway.void($1, $2)"
_RENEW: Final = "select gateway.renew($1, $2)"
_REAP: Final = "select gateway.reap()"

# Nothing has happened, or what has happened is recognised: the same call may be sent again.
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


@dataclass(slots=True)
class _Sending:
    """Whether the database may have seen the statement."""

    begun: bool = False


class PostgresLedger(Ledger):
    """Holds and settles through `pool`, whose login is gateway_service.

    Nothing depends on what this process remembers: which calls are whose (to queue them well), which holds to undo.
    """

    def __init__(self, pool: Pool, *, deadline_s: float = DEADLINE_S) -> None:
        self._pool = pool
        self._deadline_s = deadline_s
        self._turns = Turns(AT_ONCE_FOR_ONE_USER)
        self._users: dict[str, UUID] = {}
        self._undoing: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def hold(self, request: HoldRequest) -> Hold:
        attempt = uuid4()
        sending = _Sending()
        arguments = (
            request.request_id,
            attempt,
            request.user_id,
            request.workspace_id,
            request.model,
            request.tokens,
            request.cost_nano_usd,
            _milliseconds(request.lease_s),
        )
        try:
            answer = await self._ask(_HOLD, arguments, request.user_id, sending)
        except BaseException:
            # Cancelled, timed out or cut off: the hold may stand all the same, and nobody will settle it.
            if sending.begun:
                self._undo_later(request.request_id, attempt)
            raise
        hold = hold_from_answer(request.request_id, request.tokens, request.cost_nano_usd, _answer(answer))
        if len(self._users) >= MOST_CALLS_REMEMBERED:
            del self._users[next(iter(self._users))]
        self._users[request.request_id] = request.user_id
        return hold

    async def reprice(self, request_id: str, tokens: int, cost_nano_usd: int) -> Hold:
        raise _ledger_unavailable()

    async def upkeep(self) -> None:
        return None

    async def settle(self, request_id: str, usage: Usage) -> None:
        arguments = (
            request_id,
            usage.outcome,
            usage.estimated,
            usage.deployment,
            usage.counts.prompt_tokens - usage.counts.cached_input,
            usage.counts.cached_input,
            usage.counts.output_tokens,
            usage.cost_nano_usd,
        )
        state = (await self._ask(_SETTLE, arguments, self._users.get(request_id)))[0]
        self._users.pop(request_id, None)
        if state != "settled":
            log.warning("settled_too_late", request_id=request_id, state=state, cost_nano_usd=usage.cost_nano_usd)

    async def void(self, request_id: str) -> None:
        await self._ask(_VOID, (request_id, None), self._users.get(request_id))
        self._users.pop(request_id, None)

    async def renew(self, request_id: str, lease_s: float) -> bool:
        return bool((await self._ask(_RENEW, (request_id, _milliseconds(lease_s))))[0])

    async def reap(self) -> int:
        reaped = int((await self._ask(_REAP, ()))[0])
        if reaped:
            log.warning("holds_expired", count=reaped)
        return reaped

    async def aclose(self) -> None:
        self._closing.set()
        if self._undoing:
            await asyncio.wait(set(self._undoing), timeout=3 * max(self._deadline_s, DEADLINE_S))

    async def _ask(
        self,
        query: str,
        arguments: tuple[object, ...],
        user_id: UUID | None = None,
        sending: _Sending | None = None,
    ) -> asyncpg.Record:
        """The one row that the function answers.

        In a task of its own: asyncpg waits for a frozen server even while it is being cancelled, and no caller may.
        Raises: Unavailable, at the deadline at the latest; InternalFault for a statement the database cannot accept.
        """
        answer = self._answer_in_turn(query, arguments, user_id, sending or _Sending())
        task = asyncio.get_running_loop().create_task(answer)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._deadline_s)
        except asyncio.CancelledError:
            _abandon(task)
            raise
        if not done:
            _abandon(task)
            raise _ledger_unavailable()
        return task.result()

    async def _answer_in_turn(
        self, query: str, arguments: tuple[object, ...], user_id: UUID | None, sending: _Sending
    ) -> asyncpg.Record:
        if user_id is None:
            return await self._answer(query, arguments, sending)
        async with self._turns.of(user_id):
            return await self._answer(query, arguments, sending)

    async def _answer(self, query: str, arguments: tuple[object, ...], sending: _Sending) -> asyncpg.Record:
        attempt = 1
        while True:
            try:
                with database_errors():
                    async with lend(self._pool) as connection:
                        sending.begun = True
                        return (await connection.fetch(query, *arguments))[0]
            except InternalFault:
                raise
            except ButtressError as error:
                if attempt == ATTEMPTS or not isinstance(error.__cause__, _WORTH_REPEATING):
                    raise _ledger_unavailable() from error
            await asyncio.sleep(random.uniform(0.005, 0.05) * attempt)  # noqa: S311 (jitter)
            attempt += 1

    def _undo_later(self, request_id: str, attempt: UUID) -> None:
        """The hold is being voided if it was made; past MOST_UNDOING at once it is left to its lease."""
        if len(self._undoing) < MOST_UNDOING:
            task = asyncio.get_running_loop().create_task(self._undo(request_id, attempt))
            self._undoing.add(task)
            task.add_done_callback(self._undoing.discard)

    async def _undo(self, request_id: str, attempt: UUID) -> None:
        for delay_s in UNDO_AFTER_S:
            if await _happens_within(self._closing, delay_s) or await self._undone(request_id, attempt):
                break
        # Found (then this only says so again), stopping, or out of time: now, and when no statement can be running.
        if not await self._undone(request_id, attempt):
            await asyncio.sleep(DEADLINE_S)
            if not await self._undone(request_id, attempt):
                log.info("lost_hold_not_found", request_id=request_id)

    async def _undone(self, request_id: str, attempt: UUID) -> bool:
        """The hold is finished; False where there is none (yet), or nobody to ask."""
        try:
            return str((await self._ask(_VOID, (request_id, attempt)))[0]) != "unknown"
        except ButtressError:
            return False


def _answer(row: asyncpg.Record) -> Answer:
    in_the_way = {
        "requests_per_minute": "requests",
        "tokens_per_minute": "tokens",
        "calls_in_flight": "in_flight",
        "nano_usd_per_month": "month",
    }.get(row["limit_name"])
    return Answer(
        verdict=row["verdict"],
        limit_name=row["limit_name"],
        retry_after_ms=row["retry_after_ms"] or 0,
        state=_state(row, in_the_way) if in_the_way else None,
        requests=_state(row, "requests"),
        tokens=_state(row, "tokens"),
    )


def _state(row: asyncpg.Record, name: str) -> LimitState | None:
    if row["requests_limit"] is None:
        return None
    reset_ms = 0 if name == "in_flight" else row[f"{name}_reset_ms"]
    return LimitState(row[f"{name}_limit"], row[f"{name}_remaining"], reset_ms / 1000)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _ledger_unavailable() -> Unavailable:
    return Unavailable(
        "Limits and budgets cannot be checked right now, so no call is made. Retry shortly.", code="ledger_unavailable"
    )


def _abandon(task: asyncio.Task[asyncpg.Record]) -> None:
    """The task ends when it can, and nobody hears of it."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    task.cancel()


async def _happens_within(event: asyncio.Event, delay_s: float) -> bool:
    """Whether the event has happened, at once if it has, else after `delay_s` at the latest."""
    with suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await event.wait()
    return event.is_set()
