"""An HTTP/1.1 client for LLM providers: one POST, an answer that may stream, nothing else.

No cookies, redirects, proxies or retries, and no decompression but of what was sent compressed unasked. What aiohttp's
client does for everybody costs twice as much processor time (docs/decisions/0131); llhttp, behind httptools, reads the
protocol here, too. Connections are kept and used again; whoever leaves before an answer's end closes its connection,
so that the provider notices.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Final

from core.http1_connection import Answer, Connection

KEEP_ALIVE_S: Final = 30.0  # below the 60 s and more after which servers and load balancers hang up on us


class CannotConnect(Exception):
    """No connection could be had: refused, no such name, no TLS, or not in time. Nothing was sent."""


class TooManyConnections(CannotConnect):
    """As many calls are at this provider already as may be."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server listens. `host` is a name or an address (IPv6 without brackets)."""

    host: str
    port: int
    tls: bool


class ProviderHttp:
    """The connections of one process, shared by all its calls. Make it inside a running loop, close it at shutdown."""

    def __init__(
        self,
        *,
        max_connections: int = 2048,
        keep_alive_s: float = KEEP_ALIVE_S,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._max_connections = max_connections
        self._keep_alive_s = keep_alive_s
        self._tls_context = tls_context
        self._idle: dict[Origin, deque[Connection]] = {}
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        """How many connections are open, idle ones included."""
        return len(self._open)

    async def post(self, origin: Origin, head: bytes, body: bytes, *, connect_timeout_s: float) -> Answer:
        """The answer, from the end of its headers on.

        `head` is the request line and every header but Content-Length, each line with its CRLF. Cancelled, or left by
        an error, it has closed its connection; afterwards that is `Answer.close`.

        Raises: CannotConnect, and then nothing was sent; ConnectionLost, and then nobody knows what the server did.
        """
        connection = self._take_idle(origin) or await self._connect(origin, connect_timeout_s)
        try:
            return await connection.exchange(b"%scontent-length: %d\r\n\r\n" % (head, len(body)), body)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Every connection is being closed."""
        for connection in list(self._open):
            connection.close()

    def _take_idle(self, origin: Origin) -> Connection | None:
        """The connection used last, if it is young enough; older ones are closed on the way."""
        idle = self._idle.get(origin)
        oldest_s = self._loop.time() - self._keep_alive_s
        while idle:
            connection = idle.pop()
            if connection.idle_since_s > oldest_s and not connection.is_closed:
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin, timeout_s: float) -> Connection:
        if len(self._open) >= self._max_connections and not self._close_one_idle():
            raise TooManyConnections
        connection = Connection(self._loop, when_free=lambda one: self._put_back(origin, one), when_lost=self._forget)
        self._open.add(connection)
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.create_connection(
                    lambda: connection, origin.host, origin.port, ssl=self._tls() if origin.tls else None
                )
        except (OSError, UnicodeError) as error:  # TimeoutError and ssl.SSLError are OSErrors
            self._give_up(connection)
            raise CannotConnect from error
        except BaseException:
            self._give_up(connection)
            raise
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._tls_context is None:
            self._tls_context = ssl.create_default_context()
        return self._tls_context

    def _put_back(self, origin: Origin, connection: Connection) -> None:
        idle = self._idle.setdefault(origin, deque())
        idle.append(connection)
        oldest_s = self._loop.time() - self._keep_alive_s
        while idle and (idle[0].is_closed or idle[0].idle_since_s <= oldest_s):
            idle.popleft().close()

    def _give_up(self, connection: Connection) -> None:
        connection.close()
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)

    def _close_one_idle(self) -> bool:
        """The connection that has been idle longest at some origin is being closed; False where none is idle."""
        for idle in self._idle.values():
            if idle:
                self._give_up(idle.popleft())
                return True
        return False
