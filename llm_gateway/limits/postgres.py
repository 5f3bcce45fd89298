"""The ledger in PostgreSQL: many calls in one statement (migrations/*_gateway_post.sql), in time or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast
from uuid import UUID, uuid4

import asyncpg

from core.errors import ButtressError, InternalFault, Unavailable
from core.logging import get_logger
from core.postgres import ServicePool, database_errors, fetch_repeatable, lend, within
from core.waiting import happens_within
from llm_gateway.limits.batching import Batch, Batches, Posting
from llm_gateway.limits.ledger import Hold, HoldRequest, Ledger, LimitState, Usage
from llm_gateway.limits.rules import Answer, hold_from_answer, require_rehearsed

log = get_logger(__name__)

# A hold whose answer was lost is looked for until no statement can be running any more that would still make it.
UNDO_AFTER_S: Final = (0.05, 1.0, 6.0, 30.0)
MOST_UNDOING: Final = 1000
UNDO_AT_CLOSE_S: Final = 3.0  # however long the database may take: a stop may not, and leases end what is left
MOST_CALLS_REMEMBERED: Final = 10_000
UPKEEP_TIMEOUT_S: Final = 600

_POST: Final = (
    "select * from gateway.post($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
)
_HOLD_ONE: Final = "select * from gateway.hold_one($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_FINISH_ONE: Final = "select gateway.finish_one($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_UNMETERED: Final = "unmetered"
_FINISHED_COLUMNS: Final = 9
_COUNTS_COLUMN: Final = 7
_NEW_COLUMNS: Final = 9
_NO_COUNTS: Final = (0,) * 9
_REPRICE: Final = "select * from gateway.reprice($1, $2, $3)"
_RENEW: Final = "select gateway.renew($1, $2)"
_REHEARSE: Final = "select * from gateway.rehearse()"
_REAP: Final = "select gateway.reap()"
_UPKEEP: Final = "select gateway.upkeep()"
_FORGET_METERS: Final = "select gateway.forget_meters()"


class PostgresLedger(Ledger):
    """Holds and settles through `pool`, whose login is gateway_service.

    Nothing depends on what this process remembers: which calls are whose (to queue them well), which holds to undo.
    """

    def __init__(self, pool: ServicePool) -> None:
        self._pool = pool
        self._batches = Batches(self._send, deadline_s=pool.deadline_s, too_late=_ledger_unavailable)
        self._users: dict[str, UUID] = {}
        self._undoing: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def hold(self, request: HoldRequest) -> Hold:
        attempt = uuid4()
        arguments = (
            request.request_id,
            attempt,
            request.user_id,
            request.key_id,
            request.workspace_id,
            request.model,
            request.tokens,
            request.cost_nano_usd,
            _milliseconds(request.lease_s),
        )
        posting = self._batches.put(arguments, request.user_id, finished=False)
        try:
            row = await posting.answer
        except BaseException:
            # Cancelled, timed out or cut off: the hold may stand all the same, and nobody will settle it.
            if posting.sent:
                self._undo_later(request.request_id, attempt)
            raise
        hold = hold_from_answer(request.request_id, request.tokens, request.cost_nano_usd, _answer(row))
        if len(self._users) >= MOST_CALLS_REMEMBERED:
            del self._users[next(iter(self._users))]
        self._users[request.request_id] = request.user_id
        return hold

    async def reprice(self, request_id: str, tokens: int, cost_nano_usd: int) -> Hold:
        [row] = await self._ask(_REPRICE, (request_id, tokens, cost_nano_usd))
        return hold_from_answer(request_id, tokens, cost_nano_usd, _answer(row))

    async def settle(self, request_id: str, usage: Usage) -> None:
        counts = usage.counts
        by_class = (
            counts.input,
            counts.cached_input,
            counts.cache_write_5m,
            counts.cache_write_1h,
            counts.input_audio,
            counts.output,
            counts.reasoning,
            counts.output_audio,
            counts.images,
        )
        how = ("settled", usage.outcome, usage.estimated, usage.endpoint, usage.deployment)
        state = await self._finish(request_id, None, *how, by_class, usage.cost_nano_usd)
        if state != "settled":
            log.warning("settled_too_late", request_id=request_id, state=state, cost_nano_usd=usage.cost_nano_usd)

    async def void(self, request_id: str) -> None:
        await self._void(request_id, None)

    async def renew(self, request_id: str, lease_s: float) -> bool:
        [row] = await self._ask(_RENEW, (request_id, _milliseconds(lease_s)))
        return bool(row[0])

    async def reap(self) -> int:
        [row] = await self._ask(_REAP, ())
        reaped = int(row[0])
        if reaped:
            log.warning("holds_expired", count=reaped)
        return reaped

    async def upkeep(self) -> None:
        while (step := await self._upkeep_step(_UPKEEP)) is not None:
            log.info("books_kept", step=step)
        if forgotten := await self._upkeep_step(_FORGET_METERS):
            log.info("meters_forgotten", count=forgotten)

    async def _upkeep_step(self, statement: str) -> str | int | None:
        with database_errors():
            async with lend(self._pool) as connection, connection.transaction():
                # the pool's own limit is for what somebody waits for; this may read all the calls of a day
                await connection.execute(f"set local statement_timeout = '{UPKEEP_TIMEOUT_S}s'")
                done: str | int | None = await connection.fetchval(statement, timeout=UPKEEP_TIMEOUT_S)
        return done

    async def rehearse(self) -> bool:
        rows = await self._ask(_REHEARSE, ())
        if rows:
            require_rehearsed([_answer(row) for row in rows])
        return bool(rows)

    async def aclose(self) -> None:
        self._closing.set()
        if self._undoing:
            await asyncio.wait(set(self._undoing), timeout=UNDO_AT_CLOSE_S)

    async def _void(self, request_id: str, attempt: UUID | None) -> str:
        return await self._finish(request_id, attempt, "voided", None, False, None, None, _NO_COUNTS, 0)

    async def _finish(self, request_id: str, *rest: object) -> str:
        """The state the call is in."""
        posting = self._batches.put((request_id, *rest), self._users.get(request_id), finished=True)
        state = str((await posting.answer)[0])
        self._users.pop(request_id, None)
        return state

    async def _send(self, batch: Batch) -> None:
        """Every posting of the batch has its answer; one that the database cannot accept fails by itself."""
        try:
            rows = await self._post(batch)
        except InternalFault as error:
            if len(batch) == 1:
                batch.fail(error)
                return
            for one in batch.one_by_one():
                await self._send(one)
        except ButtressError as error:
            batch.fail(error)
        else:
            batch.answer(rows)

    async def _post(self, batch: Batch) -> list[asyncpg.Record]:
        """An answer for each posting. Raises: Unavailable, and it may have happened; InternalFault, and it has not."""
        if len(batch) == 1:
            [posting] = batch
            query = _HOLD_ONE if batch.new else _FINISH_ONE
            rows = await self._answers(query, posting.arguments, given_up=lambda: batch.given_up)
            if rows[0][0] != _UNMETERED:
                return rows
        finished = _columns(batch.finished, _FINISHED_COLUMNS)
        # nine counts a call, one call after the other
        finished[_COUNTS_COLUMN] = [count for counts in finished[_COUNTS_COLUMN] for count in cast("list[int]", counts)]
        arguments = (*finished, *_columns(batch.new, _NEW_COLUMNS))
        return await self._answers(_POST, arguments, given_up=lambda: batch.given_up)

    async def _ask(self, query: str, arguments: tuple[object, ...]) -> list[asyncpg.Record]:
        """What the function answers.

        Raises: Unavailable, at the deadline at the latest; InternalFault for a statement the database cannot accept.
        """
        try:
            return await within(self._pool.deadline_s, self._answers(query, arguments))
        except TimeoutError as error:
            raise _ledger_unavailable() from error

    async def _answers(
        self, query: str, arguments: tuple[object, ...], *, given_up: Callable[[], bool] = lambda: False
    ) -> list[asyncpg.Record]:
        """What the function answers; asked again after a conflict or a lost connection, while somebody waits."""
        try:
            return await fetch_repeatable(self._pool, query, *arguments, given_up=given_up)
        except InternalFault:
            raise
        except ButtressError as error:
            raise _ledger_unavailable() from error

    def _undo_later(self, request_id: str, attempt: UUID) -> None:
        """The hold is being voided if it was made; past MOST_UNDOING at once it is left to its lease."""
        if len(self._undoing) < MOST_UNDOING:
            task = asyncio.get_running_loop().create_task(self._undo(request_id, attempt))
            self._undoing.add(task)
            task.add_done_callback(self._undoing.discard)

    async def _undo(self, request_id: str, attempt: UUID) -> None:
        clock = asyncio.get_running_loop().time
        all_over_s = clock() + self._pool.deadline_s  # no statement that the lost call sent is running any more
        for delay_s in UNDO_AFTER_S:
            if await happens_within(self._closing, delay_s) or await self._undone(request_id, attempt):
                break
        # Found (then this only says so again), stopping, or out of time: now, and when all is over.
        undone = await self._undone(request_id, attempt)
        if undone is None and self._closing.is_set():
            # tested, but Python 3.11 does not trace what follows an exception that was thrown into a coroutine
            log.info("lost_hold_left_to_its_lease", request_id=request_id)  # pragma: no cover
        elif not undone:
            await asyncio.sleep(max(0.0, all_over_s - clock()))
            if not await self._undone(request_id, attempt):
                log.info("lost_hold_not_found", request_id=request_id)

    async def _undone(self, request_id: str, attempt: UUID) -> bool | None:
        """The hold is finished; False where there is none (yet), None where nobody answers."""
        try:
            return await self._void(request_id, attempt) != "unknown"
        except ButtressError:
            return None


def _columns(postings: list[Posting], number: int) -> list[list[object]]:
    """The arguments, an array each."""
    if not postings:
        return [[] for _ in range(number)]
    return [list(column) for column in zip(*(posting.arguments for posting in postings), strict=True)]


def _answer(row: asyncpg.Record) -> Answer:
    """Columns: see gateway.answer."""
    return Answer(
        verdict=row[0],
        scope=row[1] or "user",
        limit_name=row[2] or "requests_per_minute",
        retry_after_ms=row[3] or 0,
        state=_state(row[4], row[5], row[6]),
        requests=_state(row[7], row[8], row[9]),
        tokens=_state(row[10], row[11], row[12]),
    )


def _state(limit: int | None, remaining: int, reset_ms: int) -> LimitState | None:
    return None if limit is None else LimitState(limit, remaining, reset_ms / 1000)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _ledger_unavailable() -> Unavailable:
    return Unavailable(
        "Limits and budgets cannot be checked right now, so no call is made. Retry shortly.", code="ledger_unavailable"
    )
