"""The shared HTTP clients against real sockets: what fails is named rightly, and nobody's cookie reaches another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import httpx
import pytest
from aiohttp import web

from core.http import make_http_client
from tests.support.local_http import serving
from tests.support.stack import free_ports

patient_client = partial(make_http_client, connect_timeout_s=20, read_timeout_s=20)


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def silence(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def hanging_up_after(raw: bytes) -> AsyncIterator[str]:
    """A server that reads a request, sends these bytes and closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_answer_is_read() -> None:
    async with serving(hello) as url, patient_client() as http:
        assert (await http.get(url)).text == "hello"


async def test_compressed_answers_are_read() -> None:
    async def compressed(_: web.Request) -> web.Response:
        response = web.Response(text="hello" * 100)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with serving(compressed) as url, patient_client() as http:
        assert (await http.get(url)).text == "hello" * 100


async def test_a_refused_connection_is_a_connect_error() -> None:
    async with patient_client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"http://127.0.0.1:{free_ports(1)[0]}")


async def test_an_unknown_host_is_a_connect_error() -> None:
    async with patient_client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("http://nowhere.invalid/")


async def test_a_server_that_accepts_nobody_is_a_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        queue = [socket.socket() for _ in range(3)]  # what the kernel accepts by itself; the rest waits
        for client in queue:
            client.setblocking(False)
            client.connect_ex(address)
        async with make_http_client(connect_timeout_s=0.1) as http:
            with pytest.raises(httpx.ConnectTimeout):
                await http.get(f"http://127.0.0.1:{address[1]}")
        for client in queue:
            client.close()


async def test_an_exhausted_pool_is_a_connect_timeout() -> None:
    asked = asyncio.Event()

    async def listen(request: web.Request) -> web.Response:
        asked.set()
        return await silence(request)

    async def ask_until_connected() -> None:
        while True:
            with suppress(httpx.ConnectTimeout):
                await http.get(url)

    async with serving(listen) as url, make_http_client(max_connections=1, connect_timeout_s=0.1) as http:
        first = asyncio.create_task(ask_until_connected())
        await asked.wait()
        with pytest.raises(httpx.ConnectTimeout):
            await http.get(url)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_server_that_does_not_answer_is_a_read_timeout() -> None:
    async with serving(silence) as url, make_http_client(connect_timeout_s=20, read_timeout_s=0.1) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get(url)


async def test_a_connection_dropped_before_the_answer_is_not_a_timeout() -> None:
    async with hanging_up_after(b"") as url, patient_client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


async def test_a_connection_dropped_within_the_answer_is_a_read_error() -> None:
    async with (
        hanging_up_after(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf") as url,
        patient_client() as http,
    ):
        with pytest.raises(httpx.ReadError):
            await http.get(url)


async def test_nothing_is_retried() -> None:
    calls = 0

    async def failing(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(status=503)

    async with serving(failing) as url, patient_client() as http:
        assert (await http.get(url)).status_code == 503
    assert calls == 1


async def test_redirects_are_not_followed() -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/other"})

    async with serving(elsewhere) as url, patient_client() as http:
        assert (await http.get(url)).status_code == 302


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with serving(hello) as url, patient_client() as http:
        assert (await http.get(url)).text == "hello"


async def test_one_callers_cookie_never_reaches_another() -> None:
    seen: list[str | None] = []

    async def cookies(request: web.Request) -> web.Response:
        seen.append(request.headers.get("cookie"))
        return web.Response(headers={"set-cookie": "session=canary; Path=/"})

    async with serving(cookies) as url, patient_client() as http:
        localhost = url.replace("127.0.0.1", "localhost")
        for address in (url, url, localhost, localhost):
            await http.get(address)
    assert seen == [None] * 4


async def test_two_hundred_callers_keep_their_own_credentials() -> None:
    async def whoami(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return web.Response(text=request.headers["authorization"])

    async with serving(whoami) as url, patient_client() as http:

        async def ask(name: str) -> None:
            assert (await http.get(url, headers={"authorization": name})).text == name

        async with anyio.create_task_group() as callers:
            for n in range(200):
                callers.start_soon(ask, f"Bearer {n}")
