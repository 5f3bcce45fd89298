"""Each request runs as the caller, with the settings PostgREST makes, and nobody was granted anything by the server."""

import time
from uuid import uuid4

import asyncpg
import httpx

from tests.support.callers import Caller, mint_token
from tests.support.embedded_supabase import EmbeddedSupabase


async def test_an_anonymous_request_runs_as_anon(anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.post("/rest/v1/rpc/probe_whoami")).json() == "anon"


async def test_a_user_runs_as_authenticated(signed_in: httpx.AsyncClient) -> None:
    assert (await signed_in.post("/rest/v1/rpc/probe_whoami")).json() == "authenticated"


async def test_the_secret_key_runs_as_service_role(supabase: EmbeddedSupabase) -> None:
    async with supabase.client(key=supabase.secret_key) as client:
        assert (await client.post("/rest/v1/rpc/probe_whoami")).json() == "service_role"


async def test_a_token_cannot_name_a_role_that_authenticator_may_not_become(
    supabase: EmbeddedSupabase, person: Caller
) -> None:
    for role in ("postgres", "supabase_auth_admin"):
        token = mint_token(supabase, person.user_id, session_id=uuid4(), role=role)
        async with supabase.client(token=token) as client:
            response = await client.post("/rest/v1/rpc/probe_whoami")
        assert response.status_code == 403, role
        assert response.json()["code"] == "42501"


async def test_serving_requests_grants_nothing(
    signed_in: httpx.AsyncClient, anonymous: httpx.AsyncClient, probe: asyncpg.Connection
) -> None:
    await signed_in.get("/rest/v1/probe_owned")
    await anonymous.get("/rest/v1/probe_values")
    granted = await probe.fetch(
        """
        select table_schema, table_name, grantee, privilege_type from information_schema.role_table_grants
        where grantee in ('anon', 'authenticated', 'service_role')
            and (privilege_type = 'TRUNCATE' and table_schema in ('api', 'auth')
                or table_schema = 'probe_private'
                or table_name = 'probe_owned' and grantee <> 'authenticated'
                or table_name = 'probe_owned' and privilege_type not in ('SELECT', 'INSERT'))
        """
    )
    assert granted == []
    defaults = "select count(*) from pg_default_acl where defaclnamespace = 'probe_private'::regnamespace"
    assert await probe.fetchval(defaults) == 0


async def test_policies_see_the_caller_and_not_somebody_else(
    signed_in: httpx.AsyncClient, supabase: EmbeddedSupabase
) -> None:
    written = await signed_in.post("/rest/v1/probe_owned", json={"id": int(time.time_ns() % 2**31), "name": "mine"})
    assert written.status_code == 201
    assert [row["name"] for row in (await signed_in.get("/rest/v1/probe_owned")).json()] == ["mine"]
    stranger = mint_token(supabase, uuid4(), session_id=uuid4())
    async with supabase.client(token=stranger) as other:
        assert (await other.get("/rest/v1/probe_owned")).json() == []


async def test_the_auth_functions_know_the_caller(signed_in: httpx.AsyncClient, person: Caller) -> None:
    context = (await signed_in.post("/rest/v1/rpc/probe_context", headers={"x-probe": "seen"})).json()
    assert context["uid"] == context["subject"] == str(person.user_id)
    assert context["email"] == person.email
    assert context["role"] == "authenticated"
    assert context["header"] == "seen"


async def test_the_exposed_schema_leads_the_search_path(signed_in: httpx.AsyncClient) -> None:
    context = (await signed_in.post("/rest/v1/rpc/probe_context")).json()
    assert context["search_path"].replace('"', "").split(", ")[0] == "api"
    assert "extensions" in context["search_path"]


async def test_tables_and_views_know_the_request_too(signed_in: httpx.AsyncClient) -> None:
    assert (await signed_in.get("/rest/v1/probe_request")).json() == [{"method": "GET", "path": "/probe_request"}]


async def test_reads_are_read_only_transactions(signed_in: httpx.AsyncClient) -> None:
    assert (await signed_in.get("/rest/v1/rpc/probe_context")).json()["read_only"] == "on"
    assert (await signed_in.post("/rest/v1/rpc/probe_context")).json()["read_only"] == "off"


async def test_the_roles_have_their_statement_timeouts(
    anonymous: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    assert (await anonymous.post("/rest/v1/rpc/probe_context")).json()["timeout"] == "3s"
    assert (await signed_in.post("/rest/v1/rpc/probe_context")).json()["timeout"] == "8s"


async def test_a_statement_that_takes_too_long_is_cancelled(anonymous: httpx.AsyncClient) -> None:
    started = time.monotonic()
    response = await anonymous.post("/rest/v1/rpc/probe_sleep", json={"seconds": 15})
    assert time.monotonic() - started < 12
    assert response.status_code == 500
    assert response.json()["code"] == "57014"


async def test_a_functions_own_timeout_counts(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.post("/rest/v1/rpc/probe_impatient")
    assert response.status_code == 500
    assert response.json()["code"] == "57014"
