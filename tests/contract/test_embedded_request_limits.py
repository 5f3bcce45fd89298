"""Bodies over the limit are refused before anything reads them to the end."""

from collections.abc import AsyncIterator

import httpx

MIB = 1024 * 1024


async def test_a_large_json_body_is_413(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.post("/rest/v1/probe_values", content=b"x" * (11 * MIB))
    assert response.status_code == 413
    assert "bytes" in response.json()["message"]


async def test_a_large_body_of_unstated_length_is_413_too(anonymous: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * MIB

    response = await anonymous.post("/auth/v1/signup", content=chunks())
    assert response.status_code == 413


async def test_a_body_that_is_no_json_is_the_callers_mistake(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.post("/rest/v1/probe_values", content=b"{", headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "PGRST102")
