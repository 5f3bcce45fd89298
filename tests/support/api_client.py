"""Talking to the API as somebody, over real HTTP."""

import httpx

from tests.support.api_server import ApiServer
from tests.support.callers import Caller
from tests.support.pools import PATIENCE_S


def api_as(server: ApiServer, caller: Caller | None = None) -> httpx.AsyncClient:
    """A client of the API as the caller, or as nobody. Close it: `async with api_as(…) as api`."""
    return httpx.AsyncClient(base_url=server.url, headers=caller.headers if caller else {}, timeout=PATIENCE_S)


def refusal(response: httpx.Response) -> tuple[int, str]:
    """The status and the code of a refusal, whose envelope has been checked to the last key."""
    body = response.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"code", "message", "details", "request_id"}, body
    assert body["error"]["message"].endswith((".", "!", "`")), body
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return response.status_code, body["error"]["code"]
