"""The ledger in PostgreSQL as a store whose clock the test holds: the functions that production runs, told the time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.gcra import Rate
from llm_gateway.limits.ledger import HoldRequest, LimitState, Usage
from llm_gateway.limits.meters import Amount, Meter, SubjectLimits
from llm_gateway.limits.rules import Answer
from llm_gateway.limits.standing import Subject
from stack import migrations
from tests.support.ledger_stores import NOW_US, End, HoldRow, Lost, Snapshot, Store, UsageRow
from tests.support.scratch_database import scratch_database
from tests.support.stack import RunningStack

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
COUNTS: Final = 9
LIMITS: Final = tuple(SubjectLimits.__slots__)
_POST: Final = f"select * from gateway.post_at({', '.join(f'${number}' for number in range(1, 20))})"
_REPRICE: Final = "select * from gateway.reprice_at($1, $2, $3, $4)"
_RENEW: Final = "select gateway.renew_at($1, $2, $3)"
_REAP: Final = "select gateway.reap_at($1, 100)"
_METERS: Final = """
select meters.* from gateway.meters
inner join unnest($1::text[], $2::uuid[]) as asked (scope, subject_id) using (scope, subject_id)
"""
_USAGE: Final = "select * from gateway.usage where request_id = any ($1)"


class PostgresStore(Store):
    """One connection as the superuser, who alone may pass a time in."""

    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        self.now_us = NOW_US
        self.cut = False
        self.url = url
        self.connection = connection

    async def clear(self) -> None:
        self.now_us = NOW_US
        await self.connection.execute("truncate gateway.holds, gateway.meters, gateway.usage, gateway.limits")

    async def add_user(self, user_id: UUID) -> None:
        await self.connection.execute(
            "insert into auth.users (id, email, raw_user_meta_data) values ($1, $2, '{}')",
            user_id,
            f"{user_id.hex}@example.com",
        )

    async def post(self, ends: Sequence[End], holds: Sequence[tuple[HoldRequest, UUID]]) -> list[Answer | str]:
        usages = [usage or Usage(counts=TokenCounts(), cost_nano_usd=0) for _, _, usage in ends]
        rows = await self._ask(
            _POST,
            self._now(),
            [request_id for request_id, _, _ in ends],
            [attempt for _, attempt, _ in ends],
            ["voided" if usage is None else "settled" for _, _, usage in ends],
            [None if usage is None else usage.outcome for _, _, usage in ends],
            [usage.estimated for usage in usages],
            [usage.endpoint for usage in usages],
            [usage.deployment for usage in usages],
            [count for usage in usages for count in astuple(usage.counts)],
            [usage.cost_nano_usd for usage in usages],
            [request.request_id for request, _ in holds],
            [attempt for _, attempt in holds],
            [request.user_id for request, _ in holds],
            [request.key_id for request, _ in holds],
            [request.workspace_id for request, _ in holds],
            [request.model for request, _ in holds],
            [request.tokens for request, _ in holds],
            [request.cost_nano_usd for request, _ in holds],
            [round(request.lease_s * 1000) for request, _ in holds],
        )
        return [
            *(str(row["verdict"]) for row in rows[: len(ends)]),
            *(_answer(row) for row in rows[len(ends) :]),
        ]

    async def hold(self, request: HoldRequest, attempt: UUID) -> Answer:
        [answer] = await self.post([], [(request, attempt)])
        assert isinstance(answer, Answer)
        return answer

    async def reprice(self, request_id: str, amount: Amount) -> Answer:
        rows = await self._ask(_REPRICE, self._now(), request_id, amount.tokens, amount.cost_nano_usd)
        return _answer(rows[0])

    async def settle(self, request_id: str, usage: Usage) -> str:
        return str((await self.post([(request_id, None, usage)], []))[0])

    async def void(self, request_id: str, attempt: UUID | None = None) -> str:
        return str((await self.post([(request_id, attempt, None)], []))[0])

    async def renew(self, request_id: str, lease_s: float) -> bool:
        return bool((await self._ask(_RENEW, self._now(), request_id, round(lease_s * 1000)))[0][0])

    async def reap(self) -> int:
        return int((await self._ask(_REAP, self._now()))[0][0])

    async def set_plan(self, name: str, limits: SubjectLimits) -> None:
        columns = ", ".join(f"{limit} = ${number}" for number, limit in enumerate(LIMITS, 2))
        await self.connection.execute("insert into gateway.plans (name) values ($1) on conflict do nothing", name)
        await self.connection.execute(f"update gateway.plans set {columns} where name = $1", name, *_values(limits))

    async def set_default_plan(self, limits: SubjectLimits) -> None:
        await self.set_plan(await self.connection.fetchval("select name from gateway.plans where is_default"), limits)

    async def set_limits(self, subject: Subject, limits: SubjectLimits, plan: str | None = None) -> None:
        values = ", ".join(f"${number}" for number in range(4, 4 + len(LIMITS)))
        changes = ", ".join(f"{limit} = excluded.{limit}" for limit in ("plan", *LIMITS))
        await self.connection.execute(
            f"insert into gateway.limits (scope, subject_id, plan, {', '.join(LIMITS)}) values ($1, $2, $3, {values})"
            f" on conflict (scope, subject_id) do update set {changes}",
            *subject,
            plan,
            *_values(limits),
        )

    async def snapshot(self, subjects: Iterable[Subject]) -> Snapshot:
        subjects = list(subjects)
        scopes, ids = [scope for scope, _ in subjects], [subject_id for _, subject_id in subjects]
        meters = await self.connection.fetch(_METERS, scopes, ids)
        holds = await self.connection.fetch("select * from gateway.holds")
        return Snapshot(
            {(row["scope"], row["subject_id"]): _meter(row) for row in meters},
            {row["request_id"]: _hold_row(row) for row in holds},
        )

    async def usage(self, request_ids: Iterable[str]) -> dict[str, list[UsageRow]]:
        rows: dict[str, list[UsageRow]] = {request_id: [] for request_id in request_ids}
        if rows:
            for row in await self.connection.fetch(_USAGE, list(rows)):
                rows[row["request_id"]].append(_usage_row(row))
        return rows

    async def _ask(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        if not self.cut:
            return await self.connection.fetch(query, *arguments)
        await self.connection.execute("begin")
        await self.connection.fetch(query, *arguments)
        self.connection.terminate()
        self.connection = await connect(self.url)
        raise Lost

    def _now(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.now_us)


async def connect(url: str) -> asyncpg.Connection:
    """As the superuser, not waiting for the disk."""
    return await asyncpg.connect(url, server_settings={"synchronous_commit": "off"})


@asynccontextmanager
async def postgres_store(stack: RunningStack) -> AsyncIterator[PostgresStore]:
    """A store in a database of its own, with every migration and nobody in it."""
    async with scratch_database(stack) as url:
        await migrations.up(url)
        store = PostgresStore(url, await connect(url))
        try:
            yield store
        finally:
            await store.connection.close()


def _values(limits: SubjectLimits) -> list[int | None]:
    return [getattr(limits, name) for name in LIMITS]


def _answer(row: asyncpg.Record) -> Answer:
    if row["limit_name"] is None:
        return Answer(verdict=row["verdict"], requests=_state(row, "requests"), tokens=_state(row, "tokens"))
    return Answer(
        verdict=row["verdict"],
        scope=row["scope"],
        limit_name=row["limit_name"],
        retry_after_ms=row["retry_after_ms"],
        state=_state(row, "state"),
        requests=_state(row, "requests"),
        tokens=_state(row, "tokens"),
    )


def _state(row: asyncpg.Record, name: str) -> LimitState | None:
    if row[f"{name}_limit"] is None:
        return None
    return LimitState(row[f"{name}_limit"], row[f"{name}_remaining"], row[f"{name}_reset_ms"] / 1000)


def _meter(row: asyncpg.Record) -> Meter:
    return Meter(
        Rate(row["requests_tat_ns"], row["requests_limit"]),
        Rate(row["tokens_tat_ns"], row["tokens_limit"], row["tokens_returned_ns"]),
        row["in_flight"],
        row["held_tokens"],
        row["held_nano_usd"],
        row["day"],
        row["day_tokens"],
        row["day_nano_usd"],
        row["month"],
        row["month_nano_usd"],
    )


def _hold_row(row: asyncpg.Record) -> HoldRow:
    return HoldRow(
        row["attempt"],
        Amount(row["tokens"], row["cost_nano_usd"]),
        _us(row["held_at"]),
        _us(row["lease_expires_at"]),
        _subjects(row),
    )


def _usage_row(row: asyncpg.Record) -> UsageRow:
    counts = TokenCounts(
        **{name: row[name if name == "images" else f"{name}_tokens"] for name in TokenCounts.__slots__}
    )
    usage = Usage(
        counts=counts,
        cost_nano_usd=row["cost_nano_usd"],
        estimated=row["estimated"],
        outcome=row["outcome"] or "ok",
        deployment=row["deployment"],
        endpoint=row["endpoint"],
    )
    return UsageRow(
        row["state"],
        usage,
        Amount(row["held_tokens"], row["held_nano_usd"]),
        _us(row["held_at"]),
        _us(row["settled_at"]),
        _subjects(row),
    )


def _subjects(row: asyncpg.Record) -> tuple[Subject, ...]:
    named: list[Any] = [("user", row["user_id"]), ("key", row["key_id"]), ("workspace", row["workspace_id"])]
    return tuple(subject for subject in named if subject[1] is not None)


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
