"""A load balancer as simple as they come: TCP, round robin among those that say they are ready, nothing sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx

from tests.support.tcp_gate import relay

_CHECK_EVERY_S = 0.1
_HOST = "127.0.0.1"


class Balancer:
    """Each connection goes to one place, chosen when it is opened; places are asked every 100 ms whether they serve."""

    def __init__(self) -> None:
        self.url = ""
        self._ports: dict[str, int] = {}
        self._serving: set[str] = set()
        self._turn = 0
        self._changed = asyncio.Condition()

    def place(self, name: str, port: int) -> None:
        """What listens on this port is in the place, and is sent nothing before it says it is ready."""
        self._ports[name] = port
        self._serving.discard(name)

    async def serves(self, name: str) -> None:
        """The place is sent connections."""
        async with self._changed:
            await self._changed.wait_for(lambda: name in self._serving)

    async def check(self) -> None:
        """Until cancelled, every place is asked again and again."""
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=1.0, limits=limits) as client:
            await asyncio.gather(*(self._check_one(client, name) for name in self._ports))

    async def _check_one(self, client: httpx.AsyncClient, name: str) -> None:
        while True:
            port, ready = self._ports[name], False
            with suppress(httpx.TransportError):
                ready = (await client.get(f"http://{_HOST}:{port}/health/ready")).status_code == 200
            async with self._changed:
                if ready and self._ports[name] == port:
                    self._serving.add(name)
                else:
                    self._serving.discard(name)
                self._changed.notify_all()
            await asyncio.sleep(_CHECK_EVERY_S)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The connection is relayed to a place that serves; while there is none it waits."""
        there = None
        while there is None:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._serving))
                name = sorted(self._serving)[self._turn % len(self._serving)]
            self._turn += 1
            with suppress(OSError):  # refused, so nothing was sent: another one may have it
                there = await asyncio.open_connection(_HOST, self._ports[name])
        with suppress(OSError):
            await relay((reader, writer), there)


@asynccontextmanager
async def balancer(places: dict[str, int]) -> AsyncIterator[Balancer]:
    """A balancer before these places (name: port) that checks their health inside the block."""
    one = Balancer()
    for name, port in places.items():
        one.place(name, port)
    server = await asyncio.start_server(one.accept, _HOST, 0)
    one.url = f"http://{_HOST}:{server.sockets[0].getsockname()[1]}"
    checking = asyncio.create_task(one.check())
    try:
        yield one
    finally:
        checking.cancel()
        server.close()
