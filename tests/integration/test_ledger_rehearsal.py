"""Before a gateway says that it is ready it has seen each limit refuse a call, and nothing is left of that.

LiteLLM#27381: a limiter that was made and never registered, so that a budget was not enforced for weeks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, get_args
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from core.settings import load_settings
from llm_gateway import create_gateway
from llm_gateway.limits.ledger import LimitName, NotEnforced
from llm_gateway.limits.memory import MemoryLedger
from llm_gateway.limits.meters import SubjectLimits
from llm_gateway.limits.postgres import PostgresLedger
from tests.support.ledger_postgres_store import PostgresStore
from tests.support.pools import pool_on
from tests.support.stack import RunningStack

ROWS: Final = " union all ".join(
    f"select '{table}', to_json(t)::text from gateway.{table} as t" for table in ("holds", "meters", "usage", "limits")
)
# A ledger that loses a limit on its way to the decision, whoever does the deciding.
FORGETFUL: Final = """
create function gateway.forget() returns trigger language plpgsql as
$$ begin new.{limit} := null; return new; end $$;
create trigger forget before insert on gateway.limits
for each row when (new.scope = 'key') execute function gateway.forget();
"""


@asynccontextmanager
async def forgetful(database: asyncpg.Connection, limit: str) -> AsyncIterator[None]:
    await database.execute(FORGETFUL.format(limit=limit))
    try:
        yield
    finally:
        await database.execute("drop trigger forget on gateway.limits; drop function gateway.forget()")


@pytest.fixture
async def store(ledger_database: PostgresStore) -> PostgresStore:
    await ledger_database.clear()
    await ledger_database.add_user(uuid4())
    return ledger_database


@pytest.fixture
async def ledger(store: PostgresStore) -> AsyncIterator[PostgresLedger]:
    async with pool_on(store.url, max_size=1) as pool:
        yield PostgresLedger(pool)


async def test_each_limit_is_seen_to_refuse_and_nothing_is_left(store: PostgresStore, ledger: PostgresLedger) -> None:
    user_id: UUID = await store.connection.fetchval("select id from auth.users limit 1")
    await store.set_limits(
        ("user", user_id), SubjectLimits(**dict.fromkeys(get_args(LimitName), 0))
    )  # forbidden everything
    before = await store.connection.fetch(ROWS)
    assert len(before) == 1
    assert await ledger.rehearse()
    assert await store.connection.fetch(ROWS) == before


@pytest.mark.parametrize("limit", get_args(LimitName))
async def test_a_limit_that_lets_a_call_through_is_noticed(
    limit: LimitName, store: PostgresStore, ledger: PostgresLedger
) -> None:
    async with forgetful(store.connection, limit):
        with pytest.raises(NotEnforced):
            await ledger.rehearse()
        assert await store.connection.fetch(ROWS) == []
    assert await ledger.rehearse()


async def test_while_there_is_nobody_nothing_can_be_seen(store: PostgresStore) -> None:
    rehearsal = store.connection.transaction()
    await rehearsal.start()
    try:
        await store.connection.execute("truncate auth.users cascade")
        assert await store.connection.fetch("select * from gateway.rehearse()") == []
    finally:
        await rehearsal.rollback()


async def test_the_ledger_in_memory_is_rehearsed_too_and_forgets_it() -> None:
    ledger = MemoryLedger()
    assert await ledger.rehearse()
    assert (list(ledger.holds()), list(ledger.usage())) == ([], [])


async def test_a_gateway_whose_limits_do_not_refuse_is_never_ready(stack: RunningStack, store: PostgresStore) -> None:
    settings = load_settings({**stack.environment(), "BUTTRESS_GATEWAY_DATABASE_URL": store.url})
    gateway = create_gateway(settings)
    async with gateway.lifespan():
        async with forgetful(store.connection, "nano_usd_per_day"):
            with capture_logs() as lines:
                said = await gateway.unready_reason()
            assert said == NotEnforced.default_message
            assert "limits_not_enforced" in [line["event"] for line in lines]
        assert await gateway.unready_reason() is None
        async with forgetful(store.connection, "nano_usd_per_day"):
            assert await gateway.unready_reason() is None  # it is seen once, at the start


class PatientLedger(MemoryLedger):
    """The one in memory, whose rehearsal takes as long as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.rehearsals = 0
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def rehearse(self) -> bool:
        self.rehearsals += 1
        self.begun.set()
        await self.may_end.wait()
        return await super().rehearse()


async def test_who_does_not_wait_for_it_finds_it_done_the_next_time(stack: RunningStack) -> None:
    """A health check that is less patient than a cold connection would never be told yes."""
    ledger = PatientLedger()
    gateway = create_gateway(load_settings(stack.environment()), ledger=ledger)
    async with gateway.lifespan():
        impatient = asyncio.create_task(gateway.unready_reason())
        await ledger.begun.wait()
        impatient.cancel()
        await asyncio.wait({impatient})
        ledger.may_end.set()
        for _ in range(3):  # turns of the loop, in which it ends
            await asyncio.sleep(0)
        assert await gateway.unready_reason() is None
        assert ledger.rehearsals == 1
