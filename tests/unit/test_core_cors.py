"""Cross-origin permission: for the origins on the list, letter by letter, and for nobody else."""

import httpx
import pytest

from core.asgi import Receive, Scope, Send
from core.cors import Cors

OURS = "https://app.example.com"


async def answers(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})


def page_at(origin: str | None) -> httpx.AsyncClient:
    app = Cors(answers, origins=(OURS,))
    headers = {"origin": origin} if origin else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://api.example.com", headers=headers)


PREFLIGHT = {"access-control-request-method": "DELETE", "access-control-request-headers": "authorization"}


async def test_a_page_on_the_list_may_read_answers_and_ask_beforehand() -> None:
    async with page_at(OURS) as page:
        answer = await page.get("/")
        assert answer.headers["access-control-allow-origin"] == OURS
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        asked = await page.options("/", headers=PREFLIGHT)
        assert (asked.status_code, asked.content) == (204, b"")
        assert "DELETE" in asked.headers["access-control-allow-methods"]
        assert "authorization" in asked.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in asked.headers


@pytest.mark.parametrize(
    "origin",
    ["https://appXexample.com", "https://app.example.com.evil.org", "https://evil.org/https://app.example.com",
     "http://app.example.com", "https://app.example.com:444", "null", "*", "HTTPS://APP.EXAMPLE.COM"],
)  # fmt: skip
async def test_any_other_page_gets_no_permission(origin: str) -> None:
    async with page_at(origin) as page:
        for answer in (await page.get("/"), await page.options("/", headers=PREFLIGHT)):
            assert not any(name.startswith("access-control-") for name in answer.headers)
            assert answer.headers["vary"] == "Origin"  # or a cache would hand it to the page next door


async def test_without_an_origin_nothing_is_added() -> None:
    async with page_at(None) as page:
        assert "vary" not in (await page.get("/")).headers
        assert (await page.options("/", headers=PREFLIGHT)).content == b"answer"
