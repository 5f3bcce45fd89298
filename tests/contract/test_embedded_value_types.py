"""Values leave PostgREST in the form PostgreSQL's own JSON functions give them."""

import asyncpg
import httpx
import pytest


@pytest.fixture
async def row(anonymous: httpx.AsyncClient, probe: asyncpg.Connection) -> httpx.Response:
    key = await probe.fetchval(
        """
        insert into api.probe_values (at, plain, exact, big, document)
        values (
            '2026-03-04 05:06:07.123456+02', '2026-03-04 05:06:07', 12.30, 9007199254740993,
            '{"a": [1, "2026-01-01 00:00"]}'
        )
        returning id
        """
    )
    return await anonymous.get("/rest/v1/probe_values", params={"id": f"eq.{key}"})


async def test_timestamps_are_iso_8601_with_microseconds_and_offset(row: httpx.Response) -> None:
    assert row.json()[0]["at"] == "2026-03-04T03:06:07.123456+00:00"
    assert row.json()[0]["plain"] == "2026-03-04T05:06:07"


async def test_a_numeric_keeps_all_its_digits(row: httpx.Response) -> None:
    assert '"exact":12.30' in row.text


async def test_a_bigint_over_2_to_the_53_is_exact(row: httpx.Response) -> None:
    assert '"big":9007199254740993' in row.text


async def test_text_inside_a_document_is_left_alone(row: httpx.Response) -> None:
    assert row.json()[0]["document"] == {"a": [1, "2026-01-01 00:00"]}


async def test_infinity_is_a_string(anonymous: httpx.AsyncClient, probe: asyncpg.Connection) -> None:
    key = await probe.fetchval("insert into api.probe_values (at, exact) values ('infinity', 'NaN') returning id")
    [row] = (await anonymous.get("/rest/v1/probe_values", params={"id": f"eq.{key}"})).json()
    assert (row["at"], row["exact"]) == ("infinity", "NaN")


async def test_a_bigint_sent_as_text_keeps_all_its_digits(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.post(
        "/rest/v1/probe_values",
        json={"big": "9007199254740993", "exact": "0.10000000000000000001"},
        headers={"Prefer": "return=representation"},
    )
    assert '"big":9007199254740993' in response.text
    assert '"exact":0.10000000000000000001' in response.text
