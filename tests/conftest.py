"""Fixtures every kind of test may use: the real stack, its database, the API on it and the fake provider."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from tests.support.api_server import ApiServer, api_server_on
from tests.support.callers import Caller, Team, make_team, new_caller
from tests.support.certificates import certificates_are_read_once
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.ledger_postgres_store import PostgresStore, postgres_store
from tests.support.midnight import one_day
from tests.support.service_logs import pytest_runtest_call, pytest_runtest_makereport
from tests.support.session import pytest_collection_modifyitems, pytest_configure
from tests.support.stack import RunningStack, running_stack
from tests.support.time_limit import pytest_pyfunc_call

# hooks and fixtures: pytest finds them here
__all__ = [
    "certificates_are_read_once",
    "one_day",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_pyfunc_call",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:  # options are the plugin's own, of mixed types
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """PostgreSQL, the embedded Supabase and every migration; started once, ended for sure."""
    with running_stack(durable=False) as running:
        yield running


@pytest.fixture
async def database(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    """One connection as the superuser, for this test alone."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def ledger_database(stack: RunningStack) -> AsyncIterator[PostgresStore]:
    """The ledger in a database of its own, for the tests that hold its clock; each begins with `clear()`."""
    async with postgres_store(stack) as store:
        yield store


@pytest.fixture(scope="session")
def fake_provider() -> Iterator[FakeProvider]:
    """A model provider that does as scripted; a test that scripts it or reads its bill calls `reset()` first."""
    with FakeProvider.start() as provider:
        yield provider


@pytest.fixture(scope="session")
def api_server(stack: RunningStack, fake_provider: FakeProvider) -> Iterator[ApiServer]:
    """The API and the gateway under granian, on the tests' stack, whose one model is the fake provider's."""
    with api_server_on(stack, fake_provider.url) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(stack: RunningStack, fake_provider: FakeProvider) -> Iterator[GatewayServer]:
    """The gateway alone, on the tests' stack, with several models that the fake provider plays."""
    with gateway_on(stack, fake_provider) as server:
        yield server


@pytest.fixture
async def caller(stack: RunningStack, database: asyncpg.Connection, fake_provider: FakeProvider) -> Caller:
    """Somebody who has just signed up; the fake provider does as it does unscripted."""
    fake_provider.reset()
    return await new_caller(stack, database)


@pytest.fixture
async def team(stack: RunningStack, database: asyncpg.Connection, fake_provider: FakeProvider) -> Team:
    """A workspace with a member of each role, and a stranger to it; the fake provider does as it does unscripted."""
    fake_provider.reset()
    return await make_team(stack, database)
