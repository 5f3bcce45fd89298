"""A database error answers with its own code, message, details and hint, and the status PostgREST gives that code."""

import httpx
import pytest

STATUS_OF_CODE = {
    "P0001": 400,
    "P0002": 500,
    "23514": 400,
    "23505": 409,
    "22023": 400,
    "40001": 500,
    "40P01": 500,
    "53400": 500,
    "55P03": 500,
    "57014": 500,
    "XX000": 500,
    "42883": 404,
    "42P01": 404,
    "28000": 403,
    "42501": 403,
    "BT001": 400,
}


@pytest.mark.parametrize(("code", "status"), STATUS_OF_CODE.items())
async def test_a_raised_error_keeps_its_code_and_gets_its_status(
    signed_in: httpx.AsyncClient, code: str, status: int
) -> None:
    response = await signed_in.post("/rest/v1/rpc/probe_refuse", json={"state": code})
    assert response.status_code == status
    body = response.json()
    assert (body["code"], body["message"], body["details"]) == (code, "refused", "the detail")


async def test_the_hint_is_handed_on(signed_in: httpx.AsyncClient) -> None:
    response = await signed_in.post("/rest/v1/rpc/probe_refuse", json={"state": "P0001"})
    assert response.json()["hint"] == "the hint"


async def test_permission_denied_is_401_for_whoever_has_not_signed_in(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.get("/rest/v1/probe_rows")
    assert (response.status_code, response.json()["code"]) == (401, "42501")


async def test_a_violated_check_is_400(signed_in: httpx.AsyncClient) -> None:
    response = await signed_in.post("/rest/v1/probe_rows", json={"id": 1, "name": "bad"})
    assert (response.status_code, response.json()["code"]) == (400, "23514")


async def test_a_missing_value_is_400(signed_in: httpx.AsyncClient) -> None:
    response = await signed_in.post("/rest/v1/probe_rows", json={"id": 1})
    assert (response.status_code, response.json()["code"]) == (400, "23502")
