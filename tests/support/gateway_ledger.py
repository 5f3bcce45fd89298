"""What the gateway's ledger holds about somebody, read as the superuser."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import asyncpg

from tests.support.callers import Caller
from tests.support.eventually import eventually

# The highest limits there are: no run gets there, and every one of them is kept all the same.
OUT_OF_REACH: Final[Mapping[str, int]] = {
    "requests_per_minute": 1_000_000,
    "tokens_per_minute": 10**9,
    "calls_in_flight": 100_000,
    "tokens_per_day": 10**12,
    "nano_usd_per_day": 10**15,
    "nano_usd_per_month": 10**15,
}


async def usage_rows(database: asyncpg.Connection, caller: Caller, *, count: int) -> Sequence[asyncpg.Record]:
    """The caller's finished calls, oldest first: exactly `count`, once so many are there (settling takes a moment)."""

    async def enough_rows() -> bool:
        found = await database.fetchval("select count(*) from gateway.usage where user_id = $1", caller.user_id)
        return int(found) >= count

    await eventually(enough_rows)
    rows = await database.fetch("select * from gateway.usage where user_id = $1 order by held_at", caller.user_id)
    assert len(rows) == count
    return rows


async def open_holds(database: asyncpg.Connection, caller: Caller) -> int:
    """How many of the caller's calls are held and not finished."""
    return int(await database.fetchval("select count(*) from gateway.holds where user_id = $1", caller.user_id))


async def none_held(database: asyncpg.Connection, caller: Caller) -> None:
    """None of the caller's calls is held any more (settling takes a moment)."""

    async def nothing_is_held() -> bool:
        return await open_holds(database, caller) == 0

    await eventually(nothing_is_held)


async def set_limits(database: asyncpg.Connection, caller: Caller, **limits: int) -> None:
    """The caller has these limits of their own (columns of gateway.limits), from the next call on."""
    await limit_subject(database, "user", caller.user_id, **limits)


async def limit_subject(database: asyncpg.Connection, scope: str, subject_id: UUID, **limits: int) -> None:
    """The person, key or workspace has these limits of its own, from the next call on; those not named stay."""
    names = sorted(limits)
    columns = ", ".join(names)
    values = ", ".join(f"${position + 3}" for position in range(len(names)))
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    await database.execute(
        f"insert into gateway.limits (scope, subject_id, {columns}) values ($1, $2, {values})"
        f" on conflict (scope, subject_id) do update set {changes}",
        scope,
        subject_id,
        *(limits[name] for name in names),
    )
