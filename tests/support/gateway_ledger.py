"""What the gateway's ledger holds about somebody, read as the superuser."""

from collections.abc import Sequence

import asyncpg

from tests.support.callers import Caller
from tests.support.eventually import eventually


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
    names = sorted(limits)
    columns = ", ".join(names)
    values = ", ".join(f"${position + 2}" for position in range(len(names)))
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    await database.execute(
        f"insert into gateway.limits (scope, subject_id, {columns}) values ('user', $1, {values})"
        f" on conflict (scope, subject_id) do update set {changes}",
        caller.user_id,
        *(limits[name] for name in names),
    )
