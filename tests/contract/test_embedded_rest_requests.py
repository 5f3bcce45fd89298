"""REST requests mean what they mean to PostgREST on hosted Supabase."""

import time
from uuid import uuid4

import asyncpg
import httpx
import pytest
from jose import jwt

from tests.support.callers import Caller, mint_token
from tests.support.embedded_supabase import EmbeddedSupabase
from tests.support.pools import PATIENCE_S


async def test_without_a_profile_the_first_exposed_schema_is_meant(
    anonymous: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    assert (await anonymous.get("/rest/v1/probe_values")).status_code == 200
    assert (await signed_in.post("/rest/v1/probe_rows", json={"id": 10, "name": "x"})).status_code == 201
    assert (await anonymous.post("/rest/v1/rpc/probe_whoami")).status_code == 200


async def test_a_schema_that_is_not_exposed_is_refused(anonymous: httpx.AsyncClient) -> None:
    for schema in ("probe_private", "auth", "public"):
        response = await anonymous.get("/rest/v1/secrets", headers={"Accept-Profile": schema})
        assert (response.status_code, response.json()["code"]) == (406, "PGRST106")


async def test_tx_rollback_is_neither_confirmed_nor_done_by_halves(
    signed_in: httpx.AsyncClient, probe: asyncpg.Connection
) -> None:
    response = await signed_in.post(
        "/rest/v1/probe_rows", json={"id": 11, "name": "x"}, headers={"Prefer": "tx=rollback, return=minimal"}
    )
    assert response.status_code == 201
    assert "tx=" not in response.headers.get("preference-applied", "")
    assert await probe.fetchval("select count(*) from api.probe_rows where id = 11") == 1


@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
async def test_writing_to_every_row_at_once_is_refused(
    signed_in: httpx.AsyncClient, probe: asyncpg.Connection, method: str
) -> None:
    await probe.execute("insert into api.probe_rows values (12, 'stays') on conflict do nothing")
    response = await signed_in.request(method, "/rest/v1/probe_rows", json={"name": "changed"})
    assert (response.status_code, response.json()["code"]) == (400, "21000")
    assert await probe.fetchval("select name from api.probe_rows where id = 12") == "stays"


async def test_writing_to_filtered_rows_is_not_refused(signed_in: httpx.AsyncClient, probe: asyncpg.Connection) -> None:
    await probe.execute("insert into api.probe_rows values (13, 'old') on conflict do nothing")
    renamed = await signed_in.patch("/rest/v1/probe_rows", params={"id": "eq.13"}, json={"name": "new"})
    deleted = await signed_in.delete("/rest/v1/probe_rows", params={"id": "eq.13"})
    assert (renamed.status_code, deleted.status_code) == (204, 204)
    assert await probe.fetchval("select count(*) from api.probe_rows where id = 13") == 0


@pytest.mark.parametrize("token", ["garbage", "a.b", "a.b.c", "..", "sb_publishable_of_somebody_else"])
async def test_a_bearer_token_that_is_no_token_is_refused(supabase: EmbeddedSupabase, token: str) -> None:
    async with supabase.client(token=token) as client:
        response = await client.get("/rest/v1/probe_values")
    assert response.status_code == 401
    assert response.json()["code"] == "PGRST301"


async def test_a_token_signed_by_somebody_else_is_refused(supabase: EmbeddedSupabase, person: Caller) -> None:
    claims = jwt.get_unverified_claims(person.access_token)
    async with supabase.client(token=jwt.encode(claims, "another secret of thirty-two letters")) as client:
        response = await client.get("/rest/v1/probe_values")
    assert (response.status_code, response.json()["code"]) == (401, "PGRST301")


async def test_an_expired_token_is_refused(supabase: EmbeddedSupabase, person: Caller) -> None:
    old = mint_token(supabase, person.user_id, session_id=uuid4(), claims={"exp": int(time.time()) - 120})
    async with supabase.client(token=old) as client:
        response = await client.get("/rest/v1/probe_values")
    assert (response.status_code, response.json()["code"]) == (401, "PGRST303")


async def test_a_request_without_or_with_a_wrong_key_is_refused(supabase: EmbeddedSupabase) -> None:
    async with httpx.AsyncClient(base_url=supabase.supabase_url, timeout=PATIENCE_S) as client:
        for headers in ({}, {"apikey": "sb_publishable_wrong"}):
            for path in ("/rest/v1/probe_values", "/auth/v1/user"):
                assert (await client.get(path, headers=headers)).status_code == 401, (path, headers)


async def test_nothing_but_the_three_services_is_served(
    supabase: EmbeddedSupabase, anonymous: httpx.AsyncClient
) -> None:
    if supabase.process is None:
        pytest.skip("a real Supabase serves more")
    for path in ("/", "/_system/config", "/_system/introspect", "/studio", "/rest", "/package.json"):
        assert (await anonymous.get(path)).status_code == 404, path
