"""What a migration makes is served without a restart."""

import asyncpg
import httpx

from tests.contract.conftest import skipped_patch
from tests.support.eventually import eventually

SERVED_WITHIN_S = 2.0 if skipped_patch() else 30.0  # nobody need wait long for a server that cannot


async def test_a_table_made_while_the_server_runs_is_served(
    anonymous: httpx.AsyncClient, probe: asyncpg.Connection
) -> None:
    assert (await anonymous.get("/rest/v1/probe_late")).status_code == 404
    await probe.execute("create table api.probe_late (id integer); grant select on api.probe_late to anon")
    try:

        async def is_served() -> bool:
            return (await anonymous.get("/rest/v1/probe_late")).status_code == 200

        await eventually(is_served, timeout_s=SERVED_WITHIN_S)
    finally:
        await probe.execute("drop table api.probe_late")


async def test_a_column_added_while_the_server_runs_is_served(
    anonymous: httpx.AsyncClient, probe: asyncpg.Connection
) -> None:
    await probe.execute("create table api.probe_wide (id integer); grant select, insert on api.probe_wide to anon")
    try:

        async def is_served() -> bool:
            return (await anonymous.get("/rest/v1/probe_wide")).status_code == 200

        await eventually(is_served, timeout_s=SERVED_WITHIN_S)
        for _ in range(20):  # every connection of the server's pool has seen the old shape
            await anonymous.get("/rest/v1/probe_wide")
        await probe.execute("alter table api.probe_wide add column more text default 'x'")

        async def is_wider() -> bool:
            response = await anonymous.post(
                "/rest/v1/probe_wide", json={"id": 1, "more": "y"}, headers={"Prefer": "return=representation"}
            )
            return response.status_code == 201 and response.json() == [{"id": 1, "more": "y"}]

        await eventually(is_wider, timeout_s=SERVED_WITHIN_S)
        for _ in range(20):
            response = await anonymous.get("/rest/v1/probe_wide")
            assert response.status_code == 200, response.text
            assert "more" in response.json()[0]
    finally:
        await probe.execute("drop table api.probe_wide")
