"""However an address or a host is spelled, nothing is answered without a credential.

BerriAI/litellm, CVE-2026-49468: authorization looked at a path that the Host header was a part of.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_server import GatewayServer

BODY = b'{"model": "fake/chat", "messages": [{"role": "user", "content": "Hi."}]}'
HOSTS = [
    "localhost",
    "evil.example",
    "localhost/health/live?x=",
    "localhost/health/live#",
    "localhost:8001/../../health/live",
    "user@localhost",
    "",
]
SPELLINGS = [
    "/llm/v1{0}",
    "/llm/v1{0}/",
    "//llm/v1{0}",
    "/llm//v1{0}",
    "/llm/v1/.{0}",
    "/health/live/../../llm/v1{0}",
    "/llm/v1{0}/../../../health/live",
    "/llm/v1{0};/health/live",
    "/llm/v1{0}?/health/live",
    "/llm/v1{0}%2f..%2f..%2fhealth%2flive",
    "/llm/v1{0}%00",
    "/LLM/V1{0}",
    "http://localhost/health/live/llm/v1{0}",
    "/llm/v1/%2e{0}",
]


async def status_of(gateway: GatewayServer, method: str, target: str, *headers: str) -> int:
    """The status of a request that is sent exactly as it is written."""
    at = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    body = BODY if method == "POST" else b""
    lines = [f"{method} {target} HTTP/1.1", *headers, "content-type: application/json", f"content-length: {len(body)}"]
    writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode() + body)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(("method", "path"), [("GET", "/models"), ("POST", "/chat/completions")])
async def test_no_host_opens_an_address(
    method: str, path: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    token = f"authorization: Bearer {caller.access_token}"
    for host in HOSTS:
        refused = await status_of(gateway, method, f"/llm/v1{path}", f"host: {host}")
        assert (host, refused in {400, 401}) == (host, True)
    assert await status_of(gateway, method, f"/llm/v1{path}", "host: evil.example", token) == 200
    assert fake_provider.bill().counts.requests == (method == "POST")


@pytest.mark.parametrize(("method", "path"), [("GET", "/models"), ("POST", "/chat/completions")])
async def test_no_spelling_of_an_address_opens_it(
    method: str, path: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    for spelling in SPELLINGS:
        status = await status_of(gateway, method, spelling.format(path), "host: localhost")
        assert (spelling, status in {400, 401, 404, 405}) == (spelling, True), status
    assert fake_provider.bill().counts.requests == 0
    assert await status_of(gateway, "GET", "/health/live", "host: localhost") == 200
