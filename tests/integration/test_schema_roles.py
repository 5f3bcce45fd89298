"""The one thing the migrations make that belongs to the whole cluster: the gateway's role."""

from collections.abc import Iterator

import asyncpg
import pytest

from stack import migrations
from tests.support.scratch_database import scratch_database
from tests.support.stack import RunningStack, running_stack


@pytest.fixture
def own_stack() -> Iterator[RunningStack]:
    """A second stack, whose cluster nobody else uses."""
    with running_stack(durable=False) as running:
        yield running


async def roles(database_url: str) -> list[str]:
    connection = await asyncpg.connect(database_url)
    try:
        return [
            row["rolname"] for row in await connection.fetch("select rolname from pg_roles where rolname ~ '^gateway'")
        ]
    finally:
        await connection.close()


@pytest.mark.slow
async def test_role_goes_with_the_last_database_that_uses_it(own_stack: RunningStack) -> None:
    async with scratch_database(own_stack) as second:
        await migrations.up(second)
        await migrations.down(own_stack.database_url, to="0", allow_data_loss=True)
        assert await roles(second) == ["gateway_service"]
        await migrations.down(second, to="0", allow_data_loss=True)
        assert await roles(second) == []
        await migrations.up(second)
        assert await roles(second) == ["gateway_service"]


async def test_gateway_reaches_its_own_functions_and_nothing_else(stack: RunningStack) -> None:
    gateway = await asyncpg.connect(stack.gateway_database_url)
    try:
        assert await gateway.fetchval("show statement_timeout") == "5s"
        for query in (
            "select * from gateway.plans",
            "select * from api.profiles",
            "select private.workspaces_of_caller()",
            "select * from auth.users",
            "create table public.mine (id int)",
            "create table gateway.mine (id int)",
            "set role authenticated",
            "set role service_role",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await gateway.execute(query)
    finally:
        await gateway.close()
