"""A TCP proxy before PostgreSQL that loses answers when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from tests.support.stack import free_ports

Mode = Literal["pass", "swallow answers", "cut at the answer"]


class CutProxy:
    """What happens to the bytes of the database; those of its clients always arrive.

    "swallow answers": they never arrive, and the connection stays. "cut at the answer": the next one ends its
    connection instead of arriving, and the mode is "pass" again.
    """

    def __init__(self, database_url: str) -> None:
        self.mode: Mode = "pass"
        self.lost = asyncio.Event()
        self._target = urlsplit(database_url)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = free_ports(1)[0]
        login = self._target.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._target._replace(netloc=f"{login}@127.0.0.1:{self._port}"))

    async def listen(self) -> None:
        """Clients may connect to `url`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def vanish(self) -> None:
        """Every connection is cut and new ones are refused, as when the database's machine is gone."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.hostname is not None
        upstream_reader, upstream_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        ends = {writer, upstream_writer}
        self._writers |= ends
        if self._server is not None:  # else the machine went while this connection was being made
            with suppress(ConnectionError):
                await asyncio.gather(self._ask(reader, upstream_writer), self._answer(upstream_reader, writer))
        for end in ends:
            end.transport.abort()
        self._writers -= ends

    async def _ask(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            upstream.write(data)
        upstream.transport.abort()

    async def _answer(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await upstream.read(65536):
            if self.mode == "pass":
                writer.write(data)
                continue
            self.lost.set()
            if self.mode == "cut at the answer":
                self.mode = "pass"
                break
        writer.transport.abort()


@asynccontextmanager
async def cut_proxy(database_url: str) -> AsyncIterator[CutProxy]:
    """A proxy that passes everything on, for now."""
    proxy = CutProxy(database_url)
    await proxy.listen()
    try:
        yield proxy
    finally:
        proxy.vanish()
