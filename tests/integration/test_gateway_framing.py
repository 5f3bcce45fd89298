"""What is no HTTP is the caller's mistake, and never a fault of ours."""

import asyncio
from urllib.parse import urlsplit

import pytest

from tests.support.callers import Caller
from tests.support.gateway_server import GatewayServer

CHUNKED = "transfer-encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (CHUNKED, "zz\r\nhello\r\n0\r\n\r\n"),
        (CHUNKED, "-5\r\nhello\r\n0\r\n\r\n"),
        (CHUNKED + "content-length: 5\r\n", "zz\r\n"),
        ("content-length: 5\r\ncontent-length: 6\r\n", "hello"),
    ],
)
async def test_a_body_whose_framing_is_broken_is_refused_and_its_connection_closed(
    gateway: GatewayServer, caller: Caller, headers: str, body: str
) -> None:
    url = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    who = f"host: {url.netloc}\r\nauthorization: Bearer {caller.access_token}\r\n"
    head = f"POST /llm/v1/chat/completions HTTP/1.1\r\n{who}content-type: application/json\r\n{headers}\r\n"
    writer.write((head + body).encode())
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
