"""The Supabase that the contract tests of PostgREST, Auth and Storage run against, and people who call it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
from supabase import AsyncClient, acreate_client
from supabase.lib.client_options import AsyncClientOptions

from tests.support.callers import PASSWORD, Caller, sign_up
from tests.support.embedded_supabase import Cluster, EmbeddedSupabase, create_database, embedded_supabase
from tests.support.pools import PATIENCE_S

PROBE = Path(__file__).with_name("embedded_probe.sql")
SKIP = "BUTTRESS_EMBEDDED_SKIP_PATCH"


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The PostgreSQL of the stack, or of the pytest process above this one."""
    return Cluster.from_environment() or Cluster.of(request.getfixturevalue("stack"))


@pytest.fixture(scope="session")
def supabase(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSupabase]:
    """The Supabase named by BUTTRESS_CONTRACT_…, else an embedded one of these tests' own; with the probe's objects."""
    named = EmbeddedSupabase.from_environment()
    if named:
        asyncio.run(_run_probe(named.database_url))
        yield named
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    url = asyncio.run(create_database(cluster))
    with embedded_supabase(cluster, url, tmp_path_factory.mktemp("embedded"), **skipped_patch()) as running:
        asyncio.run(_run_probe(url))
        yield running


def skipped_patch() -> dict[str, str]:
    """What a server's environment must have so that it goes without the patch a run of these tests leaves out."""
    return {SKIP: os.environ[SKIP]} if SKIP in os.environ else {}


async def _run_probe(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(PROBE.read_text())
    finally:
        await connection.close()


@pytest.fixture
async def probe(supabase: EmbeddedSupabase) -> AsyncIterator[asyncpg.Connection]:
    """The database behind the Supabase under test, as its owner."""
    connection = await asyncpg.connect(supabase.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def person(supabase: EmbeddedSupabase) -> Caller:
    """Somebody who signed up through Auth."""
    return await sign_up(supabase)


@pytest.fixture
async def anonymous(supabase: EmbeddedSupabase) -> AsyncIterator[httpx.AsyncClient]:
    async with supabase.client() as client:
        yield client


@pytest.fixture
async def signed_in(supabase: EmbeddedSupabase, person: Caller) -> AsyncIterator[httpx.AsyncClient]:
    async with supabase.client(token=person.access_token) as client:
        yield client


@pytest.fixture
def sign_up_response(anonymous: httpx.AsyncClient) -> Callable[..., Awaitable[httpx.Response]]:
    """Signs somebody new up and answers the raw response; `email` and `data` may be given."""

    async def sign_up_as(email: str | None = None, **data: object) -> httpx.Response:
        address = email or f"{uuid4().hex}@example.com"
        return await anonymous.post("/auth/v1/signup", json={"email": address, "password": PASSWORD, "data": data})

    return sign_up_as


@asynccontextmanager
async def official_client(supabase: EmbeddedSupabase, caller: Caller | None = None) -> AsyncIterator[AsyncClient]:
    """The official client, as that person; over one HTTP client that is closed in the end."""
    headers = {"Authorization": f"Bearer {caller.access_token}"} if caller else {}
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        options = AsyncClientOptions(headers=headers, httpx_client=http)
        yield await acreate_client(supabase.supabase_url, supabase.publishable_key, options)


@pytest.fixture
async def client(supabase: EmbeddedSupabase) -> AsyncIterator[AsyncClient]:
    """The official client of nobody in particular."""
    async with official_client(supabase) as made:
        yield made


@pytest.fixture
async def mine(supabase: EmbeddedSupabase, person: Caller) -> AsyncIterator[AsyncClient]:
    """The official client of the person."""
    async with official_client(supabase, person) as made:
        yield made


@pytest.fixture
async def theirs(supabase: EmbeddedSupabase) -> AsyncIterator[AsyncClient]:
    """The official client of somebody else."""
    async with official_client(supabase, await sign_up(supabase)) as made:
        yield made


@pytest.fixture
def folder(person: Caller) -> str:
    """A folder of the person's in the bucket `papers`, used by no other test."""
    return f"{person.user_id}/{uuid4().hex}"
