"""A relay before PostgreSQL that knows the ledger's statements, and keeps one back before or after its execution."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from tests.support.stack import free_ports

Keep = Literal["nothing", "statements", "answers", "everything"]

_POSTS = (b"gateway.post(", b"gateway.hold_one(", b"gateway.finish_one(")
_SSL_REQUEST = 80877103


class PostgresGate:
    """What passes is said by `keep`; `kept` is set once something of the ledger's was kept back.

    "statements": those that hold or settle calls do not reach PostgreSQL. "answers": they are executed, and nobody
    hears of it. "everything": not a byte passes. What was kept is delivered by `pass_on`, and lost by `cut`.
    """

    def __init__(self, database_url: str) -> None:
        self.keeps: Keep = "nothing"
        self.kept = asyncio.Event()
        self._target = urlsplit(database_url)
        [self._port] = free_ports(1)  # stays its own while it is shut
        login = self._target.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._target._replace(netloc=f"{login}@127.0.0.1:{self._port}"))
        self._relays: set[_Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Connections to `url` are accepted."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    def keep(self, what: Keep) -> None:
        """From here on this is kept back."""
        self.keeps = what
        self.kept.clear()

    def pass_on(self) -> None:
        """Everything passes, also what was kept so far, and also from clients that have gone meanwhile."""
        self.keeps = "nothing"
        for relay in tuple(self._relays):
            relay.deliver()

    def cut(self) -> None:
        """All connections are broken off, and what was kept is lost."""
        self.keeps = "nothing"
        for relay in tuple(self._relays):
            relay.abort()

    async def close(self) -> None:
        """The gate is shut, and none of its connections is left."""
        self.shut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def shut(self) -> None:
        """All connections are broken off, and new ones refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        relay = _Relay(self, (reader, writer), there)
        if self._server is None:  # shut since it was accepted
            relay.abort()
            return
        self._relays.add(relay)
        try:
            await relay.run()
        finally:
            self._relays.discard(relay)


class _Relay:
    """One connection, both ways."""

    def __init__(
        self,
        gate: PostgresGate,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._gate = gate
        self._reader, self._writer = here
        self._there_reader, self._there_writer = there
        self._frontend = _Frontend()
        self._asks: bytearray | None = None  # kept back
        self._answers: bytearray | None = None
        self._client_gone = False

    async def run(self) -> None:
        """Either side has closed, and nothing is kept any more."""
        with suppress(OSError):
            await asyncio.gather(self._ask(), self._answer())
        self.abort()

    def deliver(self) -> None:
        """What was kept goes its way."""
        asks, self._asks = self._asks, None
        answers, self._answers = self._answers, None
        if asks:
            _write(self._there_writer, asks)
        if answers:
            _write(self._writer, answers)
        if self._client_gone:
            self._there_writer.close()  # what was written is sent first

    def abort(self) -> None:
        """Both sides are broken off."""
        self._writer.transport.abort()
        self._there_writer.transport.abort()

    async def _ask(self) -> None:
        while data := await self._reader.read(65536):
            executes = self._frontend.executes_post(data)
            keeps = self._gate.keeps
            if self._asks is None and (keeps == "everything" or (keeps == "statements" and executes)):
                self._asks = bytearray()
            if self._asks is not None:
                self._asks += data
                self._gate.kept.set()
                continue
            if keeps == "answers" and executes:
                self._answers = bytearray()
            _write(self._there_writer, data)
        self._client_gone = True
        if not self._asks:
            self._there_writer.close()

    async def _answer(self) -> None:
        while data := await self._there_reader.read(65536):
            if self._answers is None and self._gate.keeps == "everything":
                self._answers = bytearray()
            if self._answers is None:
                _write(self._writer, data)
            else:
                self._answers += data
                self._gate.kept.set()
        self._writer.transport.abort()


def _write(writer: asyncio.StreamWriter, data: bytes | bytearray) -> None:
    """The other side gets it, unless it has gone: uvloop raises for that what nobody expects, a RuntimeError."""
    if not writer.is_closing():
        writer.write(data)


class _Frontend:
    """Reads what a client says to PostgreSQL (its protocol, version 3), as far as to know the ledger's statements."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._started = False
        self._posts: set[bytes] = set()  # names of prepared statements

    def executes_post(self, data: bytes) -> bool:
        """Whether these bytes complete the order to hold or to finish calls."""
        self._unread += data
        found = False
        while (message := self._next()) is not None:
            kind, body = message
            if kind == b"P":
                name, _, query = body.partition(b"\0")
                (self._posts.add if any(post in query for post in _POSTS) else self._posts.discard)(name)
            elif kind == b"B":
                found |= body.partition(b"\0")[2].partition(b"\0")[0] in self._posts
        return found

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._started else 0
        if len(self._unread) < head + 4:
            return None
        end = head + int.from_bytes(self._unread[head : head + 4])
        if len(self._unread) < end:
            return None
        kind, body = bytes(self._unread[:head]), bytes(self._unread[head + 4 : end])
        del self._unread[:end]
        self._started = self._started or int.from_bytes(body[:4]) != _SSL_REQUEST
        return kind, body


@asynccontextmanager
async def postgres_gate(database_url: str) -> AsyncIterator[PostgresGate]:
    """An open gate inside, a shut one afterwards."""
    gate = PostgresGate(database_url)
    await gate.open()
    try:
        yield gate
    finally:
        await gate.close()
