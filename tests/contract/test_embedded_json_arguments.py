"""A json or jsonb value arrives as the value that was sent, of whatever type."""

import httpx
import pytest

VALUES = [
    ({"a": 1}, "object"),
    ([1, 2], "array"),
    ("5", "string"),
    ("plain", "string"),
    ('{"looks": "like json"}', "string"),
    (5, "number"),
    (True, "boolean"),
]


@pytest.mark.parametrize(("value", "kind"), VALUES)
async def test_as_a_functions_argument(anonymous: httpx.AsyncClient, value: object, kind: str) -> None:
    assert (await anonymous.post("/rest/v1/rpc/probe_type", json={"p": value})).json() == kind
    assert (await anonymous.post("/rest/v1/rpc/probe_echo", json={"p": value})).json() == value


@pytest.mark.parametrize(("value", "kind"), VALUES)
async def test_as_a_column(anonymous: httpx.AsyncClient, value: object, kind: str) -> None:
    response = await anonymous.post(
        "/rest/v1/probe_values", json={"document": value}, headers={"Prefer": "return=representation"}
    )
    assert response.status_code == 201, response.text
    assert response.json()[0]["document"] == value


async def test_in_a_bulk_insert(anonymous: httpx.AsyncClient) -> None:
    rows = [{"document": {"n": 1}}, {"document": "two"}]
    response = await anonymous.post("/rest/v1/probe_values", json=rows, headers={"Prefer": "return=representation"})
    assert [row["document"] for row in response.json()] == [{"n": 1}, "two"]


async def test_filters_on_documents_work(anonymous: httpx.AsyncClient) -> None:
    await anonymous.post("/rest/v1/probe_values", json={"document": {"find": "me"}})
    found = await anonymous.get("/rest/v1/probe_values", params={"document->>find": "eq.me", "select": "document"})
    assert found.json()[0]["document"] == {"find": "me"}
    contained = await anonymous.get("/rest/v1/probe_values", params={"document": 'cs.{"find":"me"}'})
    assert len(contained.json()) >= 1
