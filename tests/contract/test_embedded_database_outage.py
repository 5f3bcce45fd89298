"""While the database is away every service says so at once, and works again by itself when it is back."""

import asyncio
import time
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.contract.conftest import skipped_patch
from tests.support.callers import PASSWORD, mint_token
from tests.support.embedded_supabase import Cluster, EmbeddedSupabase, create_database, embedded_supabase
from tests.support.eventually import eventually
from tests.support.stack import free_ports
from tests.support.tcp_gate import TcpGate, tcp_gate

REQUESTS = {
    "rest": ("GET", "/rest/v1/anything", None),
    "rpc": ("POST", "/rest/v1/rpc/anything", {}),
    "auth": ("POST", "/auth/v1/token?grant_type=password", {"email": "a@example.com", "password": PASSWORD}),
    "storage": ("POST", "/storage/v1/object/list/papers", {"prefix": ""}),
}


@pytest.fixture
async def behind_gate(
    cluster: Cluster, tmp_path: Path
) -> AsyncIterator[tuple[TcpGate, EmbeddedSupabase, httpx.AsyncClient]]:
    url = urllib.parse.urlsplit(await create_database(cluster))
    assert url.port is not None
    async with tcp_gate(url.port, free_ports(1)[0]) as gate:
        through_gate = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{gate.port}")).geturl()
        # the server starts in a thread: its first connections go through this event loop
        entered = embedded_supabase(cluster, through_gate, tmp_path, **skipped_patch())
        supabase = await asyncio.to_thread(entered.__enter__)
        try:
            token = mint_token(supabase, uuid4(), session_id=uuid4())
            async with supabase.client(token=token) as client:
                yield gate, supabase, client
        finally:
            entered.__exit__(None, None, None)


async def ask(client: httpx.AsyncClient, name: str) -> httpx.Response:
    method, path, body = REQUESTS[name]
    return await client.request(method, path, json=body)


async def test_an_outage_is_503_at_once_everywhere_and_ends_by_itself(
    behind_gate: tuple[TcpGate, EmbeddedSupabase, httpx.AsyncClient],
) -> None:
    gate, supabase, client = behind_gate
    in_peace = {name: (await ask(client, name)).status_code for name in REQUESTS}
    assert in_peace == {"rest": 404, "rpc": 404, "auth": 400, "storage": 200}

    await gate.shut()
    for name in [*REQUESTS, *REQUESTS]:
        started = time.monotonic()
        response = await ask(client, name)
        assert time.monotonic() - started < 3, name
        assert response.status_code == 503, (name, response.text)
        assert response.headers["retry-after"] == "1"
        assert "127.0.0.1" not in response.text
        assert "ECONN" not in response.text
    assert (await ask(client, "rest")).json()["code"] == "PGRST001"
    assert (await client.get("/health")).status_code == 200

    await gate.open()

    async def all_is_well() -> bool:
        return {name: (await ask(client, name)).status_code for name in REQUESTS} == in_peace

    await eventually(all_is_well)
    assert supabase.process is not None
    assert supabase.process.poll() is None


async def test_requests_under_way_when_the_database_goes_are_answered(
    behind_gate: tuple[TcpGate, EmbeddedSupabase, httpx.AsyncClient],
) -> None:
    gate, _, client = behind_gate
    asked = [asyncio.create_task(ask(client, name)) for name in REQUESTS for _ in range(10)]
    await asyncio.sleep(0)
    await gate.shut()
    responses = await asyncio.gather(*asked)
    assert {response.status_code for response in responses} <= {200, 400, 404, 503}


async def test_the_schema_is_followed_again_after_an_outage(
    behind_gate: tuple[TcpGate, EmbeddedSupabase, httpx.AsyncClient],
) -> None:
    gate, supabase, client = behind_gate
    assert (await ask(client, "rest")).status_code == 404
    await gate.shut()
    await gate.open()
    connection = await asyncpg.connect(supabase.database_url)
    try:
        await connection.execute("create schema api; create table api.anything (id integer)")
        await connection.execute(
            "grant usage on schema api to authenticated; grant select on api.anything to authenticated"
        )
    finally:
        await connection.close()

    async def is_served() -> bool:
        return (await ask(client, "rest")).status_code == 200

    await eventually(is_served)
