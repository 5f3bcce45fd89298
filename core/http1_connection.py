"""One HTTP/1.1 connection to a server, and the one answer that is on its way over it."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable
from typing import Final, cast

import httptools

_MAX_HEADER_BYTES: Final = 64 * 1024  # also of trailers and chunk extensions between two pieces of a body
# More than this is not taken off the socket before the reader has read: a slow client slows its provider down.
_READ_AHEAD_BYTES: Final = 256 * 1024
_MAX_INFLATED_BYTES: Final = 1024 * 1024  # a piece
# A body up to here is copied behind its head, which costs less than a second piece to write.
_COPIED_BODY_BYTES: Final = 64 * 1024


class ConnectionLost(Exception):
    """The connection broke, or what came is no HTTP, before the answer was complete."""


class Answer:
    """An answer whose headers have come. `headers` has lower-case names; of one sent twice it has the last."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: Connection, status: int, headers: dict[bytes, bytes]) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers

    def header(self, name: bytes) -> str | None:
        """The value of this header (name in lower case)."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def read(self) -> bytes:
        """The next bytes of the body, as they came; empty at its end. Raises: ConnectionLost."""
        return await self._connection.read(self)

    def unread(self) -> bytes:
        """What has come of the body and was not read; nothing the second time, and nothing once it was read."""
        return self._connection.unread(self)

    def close(self) -> None:
        """The connection is closed, unless the answer came to its end and somebody else may be using it by now."""
        self._connection.close(self)


class Connection(asyncio.Protocol):
    """A connection that carries one exchange after the other, never two at once.

    `when_free` is called when it may carry the next, `when_lost` when it is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        when_free: Callable[[Connection], None],
        when_lost: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._when_free = when_free
        self._when_lost = when_lost
        self._transport: asyncio.Transport | None = None
        self.is_closed = False
        self.idle_since_s = 0.0
        self._parser = httptools.HttpResponseParser(self)  # for all answers: it costs more than one of them
        self._reset()

    def _reset(self) -> None:
        self._answer: Answer | None = None
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0  # since the last byte of a body
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._inflate: zlib._Decompress | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._complete = False
        self._ends_with_connection = False
        self._said_farewell = False
        self._may_be_kept = False
        self._error: Exception | None = None
        self._busy = False

    async def exchange(self, head: bytes, body: bytes) -> Answer:
        """The request is sent and the headers of its answer have come. Raises: ConnectionLost."""
        if self._transport is None or self.is_closed:
            raise ConnectionLost
        self._reset()
        self._busy = True
        if len(body) < _COPIED_BODY_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        while self._answer is None:
            await self._something_new()
        return self._answer

    async def read(self, answer: Answer) -> bytes:
        """See Answer.read."""
        if answer is not self._answer:
            return b""  # it came to its end, and the connection is somebody else's
        while not self._pieces:
            if self._complete:
                self._free()
                return b""
            await self._something_new()
        pieces, self._pieces = self._pieces, deque()
        if self._waiting_bytes > _READ_AHEAD_BYTES and self._transport is not None and not self.is_closed:
            self._transport.resume_reading()
        self._waiting_bytes = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def unread(self, answer: Answer) -> bytes:
        """See Answer.unread."""
        if answer is not self._answer:
            return b""
        pieces, self._pieces = self._pieces, deque()
        return b"".join(pieces)

    def close(self, answer: Answer | None = None) -> None:
        """The connection is closed; with `answer`, only while it is that answer's."""
        if answer is not None and answer is not self._answer:
            return
        if not self.is_closed:
            self.is_closed = True
            if self._transport is not None:
                self._transport.abort()

    async def _something_new(self) -> None:
        """The parser has moved on. Raises: ConnectionLost when it cannot."""
        if self._error is not None:
            raise ConnectionLost from self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _free(self) -> None:
        """The answer has been read to its end."""
        self._answer = None
        self._busy = False
        if self.is_closed:
            return
        if self._ends_with_connection or not self._may_be_kept:
            self.close()
            return
        self.idle_since_s = self._loop.time()
        self._when_free(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        """What comes now is worth nothing; an answer that was complete before stays so."""
        if self._error is None and not self._complete:
            self._error = error
        self.close()
        self._wake()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.is_closed:  # given up meanwhile
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._complete:
            self._fail(ConnectionLost("the server spoke unasked"))
            return
        self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, zlib.error) as error:
            self._fail(error)
            return
        if self._header_bytes > _MAX_HEADER_BYTES and not self._complete:
            self._fail(ConnectionLost("headers without end"))
            return
        if self._waiting_bytes > _READ_AHEAD_BYTES and self._transport is not None and not self.is_closed:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Over TLS only after its close_notify: anybody on the way can end the TCP connection below it.

        uvloop keeps to that; asyncio's own loop takes either for an end.
        """
        self._said_farewell = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        is_end = self._ends_with_connection and self._said_farewell and exc is None
        if self._answer is not None and is_end and self._error is None:
            self._complete = True
        elif not self._complete:
            self._error = self._error or exc or ConnectionLost("closed by the server")
        self._wake()
        self._when_lost(self)

    # llhttp calls these

    def on_message_begin(self) -> None:
        if self._complete:
            self._fail(ConnectionLost("the server spoke unasked"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is None:  # trailers are nobody's business
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._complete:
            return
        if status < 200:
            self._headers = {}
            return  # 100 Continue, 103 Early Hints: the answer is still to come
        headers = self._headers
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if encoding == b"gzip":  # not asked for, and still sent by some
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif encoding not in {b"identity", b""}:
            self._fail(ConnectionLost("an encoding that was not asked for"))
            return
        self._ends_with_connection = b"content-length" not in headers and b"transfer-encoding" not in headers
        self._answer = Answer(self, status, headers)

    def on_body(self, data: bytes) -> None:
        self._header_bytes = 0
        if self._complete or self._error is not None:
            return
        if self._inflate is not None:
            data = self._inflate.decompress(data, _MAX_INFLATED_BYTES)
            if self._inflate.unconsumed_tail:
                self._fail(ConnectionLost("a small piece that inflates without end"))
                return
        if data:
            self._pieces.append(data)
            self._waiting_bytes += len(data)

    def on_message_complete(self) -> None:
        if self._answer is not None and self._error is None:
            self._complete = True
            self._may_be_kept = self._parser.should_keep_alive()
