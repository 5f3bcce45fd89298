"""GET /metrics answers whoever has the operator's token; without a token of the operator's there is no such address."""

from __future__ import annotations

import httpx
import pytest

from api.app import create_app as create_api
from core.asgi import AsgiApp
from core.settings import load_settings
from llm_gateway.app import create_app as create_gateway_app
from tests.unit.test_core_settings import REQUIRED

TOKEN = "prometheus-reads-with-this"
CREATE = {"the API": create_api, "the gateway alone": create_gateway_app}


def app_of(which: str, token: str | None = TOKEN) -> AsgiApp:
    environ = REQUIRED if token is None else {**REQUIRED, "BUTTRESS_METRICS_TOKEN": token}
    return CREATE[which](load_settings(environ))


async def ask(app: AsgiApp, authorization: str, method: str = "GET", path: str = "/metrics") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.request(method, path, headers={b"authorization": authorization.encode("latin-1")})


@pytest.mark.parametrize("which", CREATE)
async def test_the_right_token_reads_the_figures(which: str) -> None:
    response = await ask(app_of(which), f"Bearer {TOKEN}")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE buttress_llm_requests_total counter" in response.text
    assert "process_resident_memory_bytes" in response.text
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("which", CREATE)
@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"]
)
async def test_any_other_token_reads_nothing(which: str, authorization: str) -> None:
    response = await ask(app_of(which), authorization)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "metrics_token_invalid"
    assert response.headers["www-authenticate"] == "Bearer"
    assert "buttress_llm" not in response.text


@pytest.mark.parametrize("which", CREATE)
async def test_without_a_token_there_is_no_such_address(which: str) -> None:
    response = await ask(app_of(which, token=None), f"Bearer {TOKEN}")
    assert response.status_code in {401, 404}  # the API asks for an access token before it says what there is
    assert "buttress_llm" not in response.text


@pytest.mark.parametrize("which", CREATE)
async def test_the_figures_are_read_and_nothing_else(which: str) -> None:
    app = app_of(which)
    assert (await ask(app, f"Bearer {TOKEN}", method="POST")).status_code == 405
    assert (await ask(app, f"Bearer {TOKEN}", path="/metrics/x")).status_code == 404
