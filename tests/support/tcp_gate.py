"""A TCP relay that can be shut, so that a service behind it is down for some and up for the rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK_BYTES = 64 * 1024


class TcpGate:
    """Relays 127.0.0.1:`port` to the target while open, refuses connections while shut, and swallows while stalled."""

    def __init__(self, target_port: int, port: int) -> None:
        self.port = port
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._stalled = False

    async def open(self) -> None:
        """Connections are relayed."""
        self._stalled = False
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stall(self) -> None:
        """Connections are accepted and never answered; those there were are cut."""
        await self.open()
        self._stalled = True
        await self._cut()

    async def shut(self) -> None:
        """Connections are refused; those there were are cut."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio runs each connection in a task")
        self._relays.add(task)
        try:
            await self._relay(reader, writer)
        except (asyncio.CancelledError, OSError):
            pass  # cut by us or by either side: the connection is over all the same
        finally:
            self._relays.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            return  # the gate was shut while this connection was being made
        if self._stalled:
            await asyncio.Event().wait()
        await relay((reader, writer), await asyncio.open_connection("127.0.0.1", self._target_port))


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def relay(here: Ends, there: Ends) -> None:
    """Bytes went both ways until both sides had closed; afterwards the far end is closed."""
    try:
        async with asyncio.TaskGroup() as both_ways:
            both_ways.create_task(_copy(here[0], there[1]))
            both_ways.create_task(_copy(there[0], here[1]))
    finally:
        there[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def tcp_gate(target_port: int, port: int) -> AsyncIterator[TcpGate]:
    """An open gate inside, a shut one afterwards."""
    gate = TcpGate(target_port, port)
    await gate.open()
    try:
        yield gate
    finally:
        await gate.shut()
