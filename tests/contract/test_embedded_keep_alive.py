"""Idle connections end on our side: a server that hangs up first may do so while a request is on its way to it."""

import httpx

from core.http import KEEP_ALIVE_S


async def test_the_server_keeps_idle_connections_longer_than_our_client(anonymous: httpx.AsyncClient) -> None:
    announced = (await anonymous.get("/rest/v1/probe_values")).headers["keep-alive"]
    assert int(announced.removeprefix("timeout=")) > 2 * KEEP_ALIVE_S, announced
