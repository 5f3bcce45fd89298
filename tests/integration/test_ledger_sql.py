"""What of the ledger is PostgreSQL's alone: plans and users that must be there, amounts and rows that have a size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from llm_gateway.limits.memory import FREE
from llm_gateway.limits.meters import SubjectLimits
from tests.support.ledger import (
    NOW_US,
    Clockwork,
    at,
    clockwork_of_its_own,
    new_user,
    user_with,
)


@pytest.fixture
async def clockwork(database: asyncpg.Connection) -> AsyncIterator[Clockwork]:
    async with clockwork_of_its_own(database) as own:
        yield own


async def test_there_is_never_a_second_default_plan(clockwork: Clockwork) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await clockwork.database.execute("insert into gateway.plans (name, is_default) values ('second', true)")


async def test_without_a_default_plan_nobody_calls_for_free(clockwork: Clockwork) -> None:
    user_id = await new_user(clockwork.database)
    await clockwork.database.execute("update gateway.plans set is_default = false")
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await clockwork.hold(NOW_US, user_id)


async def test_a_user_who_does_not_exist_gets_no_hold_and_no_meter(clockwork: Clockwork) -> None:
    nobody = uuid4()
    assert (await clockwork.hold(NOW_US, nobody))["verdict"] == "unknown_user"
    assert not await clockwork.database.fetchval("select count(*) from gateway.meters where subject_id = $1", nobody)
    somebody = await user_with(clockwork)
    await clockwork.hold(NOW_US, somebody, request_id="a")
    await clockwork.database.execute("delete from auth.users where id = $1", somebody)
    assert (await clockwork.hold(NOW_US, somebody))["verdict"] == "unknown_user"
    assert await clockwork.settle(NOW_US, "a", tokens=3) == "settled", "what was begun is still paid"


@pytest.mark.parametrize(
    ("tokens", "cost", "lease_ms"), [(-1, 0, 1000), (0, -1, 1000), (0, 0, 999), (0, 0, 3_600_001), (10**9 + 1, 0, 1000)]
)
async def test_amounts_out_of_range_are_refused_by_the_database_too(
    clockwork: Clockwork, tokens: int, cost: int, lease_ms: int
) -> None:
    user_id = await user_with(clockwork)
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await clockwork.hold(NOW_US, user_id, tokens=tokens, cost_nano_usd=cost, lease_ms=lease_ms)


async def test_a_usage_row_stays_under_600_bytes_at_its_widest(clockwork: Clockwork) -> None:
    user_id, request_id = await user_with(clockwork), "r" * 64
    await clockwork.hold(NOW_US, user_id, key_id=uuid4(), workspace_id=uuid4(), request_id=request_id, model="m" * 128)
    await clockwork.database.execute(
        "select gateway.post_at($1, $2, array[null]::uuid[], '{settled}', '{provider_error}', '{true}',"
        " '{count_tokens}', $3, array_fill(1000000000, '{9}'), array[10 ^ 15]::bigint[],"
        " '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
        at(NOW_US),
        [request_id],
        ["d" * 128],
    )
    size = await clockwork.database.fetchval(
        "select pg_column_size(u.*) from gateway.usage as u where u.request_id = $1", request_id
    )
    assert 400 < size < 600


async def test_the_ledger_in_memory_gives_everybody_the_free_plan(database: asyncpg.Connection) -> None:
    row = await database.fetchrow("select * from gateway.plans where name = 'free'")
    assert row is not None
    assert SubjectLimits(**{name: row[name] for name in SubjectLimits.__slots__}) == FREE
