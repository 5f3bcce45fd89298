"""Users with limits, and the ledger's functions called with a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from llm_gateway.limits.ledger import Scope

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW_US = 1_800_000_000_000_000  # 2027-01-15 08:00 UTC, microseconds: PostgreSQL's resolution


@dataclass(frozen=True)
class TestLimits:
    """What a subject of a test may use; None is no limit."""

    __test__ = False  # not a test class, whatever its name says

    requests_per_minute: int | None = 1000
    tokens_per_minute: int | None = 1_000_000
    calls_in_flight: int | None = 1000
    nano_usd_per_month: int | None = 10**12
    tokens_per_day: int | None = 10**9
    nano_usd_per_day: int | None = 10**12


async def new_user(database: asyncpg.Connection, limits: TestLimits | None = None) -> UUID:
    """A user who exists, with these limits of their own (None: the default plan's)."""
    user_id = uuid4()
    await database.execute(
        "insert into auth.users (id, email, raw_user_meta_data) values ($1, $2, '{}')",
        user_id,
        f"{user_id.hex}@example.com",
    )
    if limits is not None:
        await set_limits(database, user_id, limits)
    return user_id


async def set_limits(
    database: asyncpg.Connection, subject_id: UUID, limits: TestLimits, *, scope: Scope = "user"
) -> None:
    """The subject's limits are these from now on."""
    await database.execute(
        """
        insert into gateway.limits (
            scope, subject_id, requests_per_minute, tokens_per_minute, calls_in_flight, tokens_per_day,
            nano_usd_per_day, nano_usd_per_month
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (scope, subject_id) do update set
            requests_per_minute = excluded.requests_per_minute,
            tokens_per_minute = excluded.tokens_per_minute,
            calls_in_flight = excluded.calls_in_flight,
            tokens_per_day = excluded.tokens_per_day,
            nano_usd_per_day = excluded.nano_usd_per_day,
            nano_usd_per_month = excluded.nano_usd_per_month
        """,
        scope,
        subject_id,
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.calls_in_flight,
        limits.tokens_per_day,
        limits.nano_usd_per_day,
        limits.nano_usd_per_month,
    )


def at(now_us: int) -> datetime:
    """The moment, exactly."""
    return EPOCH + timedelta(microseconds=now_us)


@asynccontextmanager
async def clockwork_of_its_own(database: asyncpg.Connection) -> AsyncIterator[Clockwork]:
    """A ledger without calls in flight, of which nothing is left: all of it happens in one transaction, rolled back.

    Other tests' holds are out of its sight, so that a clock in another year cannot reap them.
    """
    transaction = database.transaction()
    await transaction.start()
    try:
        await database.execute("delete from gateway.holds")
        yield Clockwork(database)
    finally:
        await transaction.rollback()


@dataclass(frozen=True, kw_only=True)
class NewCall:
    """A call to be held."""

    user_id: UUID
    key_id: UUID | None = None
    workspace_id: UUID | None = None
    request_id: str = field(default_factory=lambda: uuid4().hex)
    attempt: UUID = field(default_factory=uuid4)
    tokens: int = 10
    cost_nano_usd: int = 0
    lease_ms: int = 60_000
    model: str = "test/model"


@dataclass(frozen=True, kw_only=True)
class Finish:
    """A call to be finished; `counts` are its nine, in the order of the columns of gateway.usage."""

    request_id: str
    attempt: UUID | None = None
    state: str = "settled"
    tokens: int = 0
    cost_nano_usd: int = 0
    deployment: str = "test#1"

    @property
    def counts(self) -> list[int]:
        return [self.tokens, 0, 0, 0, 0, 0, 0, 0, 0]


class Clockwork:
    """gateway's functions on one connection, each told what time it is (microseconds since 1970)."""

    def __init__(self, database: asyncpg.Connection) -> None:
        self.database = database

    async def post(
        self, now_us: int, finished: Sequence[Finish] = (), new: Sequence[NewCall] = ()
    ) -> list[dict[str, Any]]:
        """An answer each, first for the finished, a column each: see gateway.answer."""
        settled = [one.state == "settled" for one in finished]
        rows = await self.database.fetch(
            f"select * from gateway.post_at({', '.join(f'${number}' for number in range(1, 20))})",
            at(now_us),
            [one.request_id for one in finished],
            [one.attempt for one in finished],
            [one.state for one in finished],
            ["ok" if paid else None for paid in settled],
            [False for _ in finished],
            ["chat" if paid else None for paid in settled],
            [one.deployment if paid else None for one, paid in zip(finished, settled, strict=True)],
            [count for one in finished for count in one.counts],
            [one.cost_nano_usd for one in finished],
            [one.request_id for one in new],
            [one.attempt for one in new],
            [one.user_id for one in new],
            [one.key_id for one in new],
            [one.workspace_id for one in new],
            [one.model for one in new],
            [one.tokens for one in new],
            [one.cost_nano_usd for one in new],
            [one.lease_ms for one in new],
        )
        return [dict(row) for row in rows]

    async def hold(
        self,
        now_us: int,
        user_id: UUID,
        **call: Any,  # what NewCall has
    ) -> dict[str, Any]:
        [answer] = await self.post(now_us, new=[NewCall(user_id=user_id, **call)])
        return answer

    async def settle(self, now_us: int, request_id: str, *, tokens: int = 0, cost_nano_usd: int = 0) -> str:
        done = Finish(request_id=request_id, tokens=tokens, cost_nano_usd=cost_nano_usd)
        return str((await self.post(now_us, [done]))[0]["verdict"])

    async def void(self, now_us: int, request_id: str, attempt: UUID | None = None) -> str:
        done = Finish(request_id=request_id, attempt=attempt, state="voided")
        return str((await self.post(now_us, [done]))[0]["verdict"])


async def user_with(clockwork: Clockwork, **limits: int | None) -> UUID:
    """A user with these limits, and with others that are not in the way."""
    return await new_user(clockwork.database, TestLimits(**limits))
