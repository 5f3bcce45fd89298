"""Users with limits, and the ledger's functions called with a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from llm_gateway.limits.ledger import Scope

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW_US = 1_800_000_000_000_000  # 2027-01-15 08:00 UTC, microseconds: PostgreSQL's resolution


@dataclass(frozen=True)
class TestLimits:
    """What a user of a test may use."""

    __test__ = False  # not a test class, whatever its name says

    requests_per_minute: int = 1000
    tokens_per_minute: int = 1_000_000
    calls_in_flight: int = 1000
    nano_usd_per_month: int = 10**12
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


class Clockwork:
    """gateway's functions on one connection, each told what time it is (microseconds since 1970)."""

    def __init__(self, database: asyncpg.Connection) -> None:
        self.database = database

    async def hold(
        self,
        now_us: int,
        user_id: UUID,
        *,
        request_id: str | None = None,
        attempt: UUID | None = None,
        tokens: int = 10,
        cost_nano_usd: int = 0,
        lease_ms: int = 60_000,
    ) -> dict[str, Any]:
        """The answer, a column each: see gateway.hold_answer."""
        row = await self.database.fetchrow(
            "select * from gateway.hold_at($1, $2, $3, $4, null, 'test/model', $5, $6, $7)",
            at(now_us),
            request_id or uuid4().hex,
            attempt or uuid4(),
            user_id,
            tokens,
            cost_nano_usd,
            lease_ms,
        )
        assert row is not None
        return dict(row)

    async def settle(self, now_us: int, request_id: str, *, tokens: int = 0, cost_nano_usd: int = 0) -> str:
        return str(
            await self.database.fetchval(
                "select gateway.settle_at($1, $2, 'ok', false, 'test#1', $3, 0, 0, $4)",
                at(now_us),
                request_id,
                tokens,
                cost_nano_usd,
            )
        )

    async def void(self, now_us: int, request_id: str, attempt: UUID | None = None) -> str:
        return str(
            await self.database.fetchval(
                "select gateway.finish_call($1, $2, $3, 'voided', null, false, null, 0, 0, 0, 0)",
                at(now_us),
                request_id,
                attempt,
            )
        )

    async def renew(self, now_us: int, request_id: str, lease_ms: int) -> bool:
        return bool(
            await self.database.fetchval("select gateway.renew_at($1, $2, $3)", at(now_us), request_id, lease_ms)
        )

    async def reap(self, now_us: int, at_most: int = 100) -> int:
        return int(await self.database.fetchval("select gateway.reap_at($1, $2)", at(now_us), at_most))

    async def meter(self, user_id: UUID) -> dict[str, Any]:
        row = await self.database.fetchrow(
            "select * from gateway.meters where scope = 'user' and subject_id = $1", user_id
        )
        assert row is not None
        return dict(row)

    async def usage(self, request_id: str) -> list[dict[str, Any]]:
        rows = await self.database.fetch("select * from gateway.usage where request_id = $1", request_id)
        return [dict(row) for row in rows]


async def user_with(clockwork: Clockwork, **limits: int) -> UUID:
    """A user with these limits, and with others that are not in the way."""
    return await new_user(clockwork.database, TestLimits(**limits))
