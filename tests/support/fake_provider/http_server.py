"""An HTTP/1.1 server whose every byte the caller decides, for a framework sends nothing that is broken."""

import asyncio
import socket
import struct
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import orjson

MAX_HEAD_BYTES = 256 * 1024
_REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
            404: "Not Found", 408: "Request Timeout", 429: "Too Many Requests", 500: "Internal Server Error",
            503: "Service Unavailable", 529: "Overloaded"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names in lower case, several headers of one name joined by a comma."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


Handler = Callable[[Request, "Connection"], Awaitable[None]]


def head(status: int, headers: dict[str, str]) -> bytes:
    """The bytes of an answer's status line and headers."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
    lines.extend(f"{name}: {value}" for name, value in headers.items())
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def http_chunk(data: bytes) -> bytes:
    """The data as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client's connection: answers its requests one after the other with the handler.

    When the client leaves, the handler's task is cancelled at once.
    """

    def __init__(self, handler: Handler, connections: set["Connection"]) -> None:
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._told_to_continue = False
        self.left_by_client = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = transport  # type: ignore[assignment]  # asyncio types it by its base class
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; a request still unanswered was left by its client."""
        self._connections.discard(self)
        self._transport = None
        self._writable.set()
        if self._task is not None:
            self.left_by_client = True
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """The bytes wait until they are a whole request and the one before is answered."""
        self._received += data
        if self._task is None:
            self._begin_next()

    def _begin_next(self) -> None:
        try:
            request = self._take_request()
        except ValueError:
            self.write(head(400, {"content-length": "0", "connection": "close"}))
            self.close()
            return
        if request is not None:
            self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        try:
            await self._handler(request, self)
        except asyncio.CancelledError:
            pass  # the client has left
        except Exception:
            # A fault of the fake provider itself must be told from one that was scripted.
            traceback.print_exc()
            self.reset()
            raise
        finally:
            self._task = None
        if self._received and self._transport is not None:
            self._begin_next()

    def _take_request(self) -> Request | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > MAX_HEAD_BYTES:
                raise ValueError("head too long")
            return None
        lines = self._received[:end].decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
        body = self._take_body(headers, end + 4)
        if body is None:
            return None
        self._told_to_continue = False
        path, query = target, ""
        if "?" in target or target.startswith("http"):
            parts = urlsplit(target)
            path, query = parts.path, parts.query
        return Request(method, path, dict(parse_qsl(query)), headers, body)

    def _take_body(self, headers: dict[str, str], start: int) -> bytes | None:
        """The body, taken off the received bytes together with the head; None while it is not complete."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body, end = _decode_chunked(self._received, start)
        else:
            end = start + int(headers.get("content-length", "0"))
            body = bytes(self._received[start:end]) if len(self._received) >= end else None
        if body is None:
            if headers.get("expect", "").lower() == "100-continue" and not self._told_to_continue:
                self._told_to_continue = True
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        del self._received[:end]
        return body

    def write(self, data: bytes) -> None:
        """The bytes go to the client as they are, if it is still there."""
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """The client has room for more bytes."""
        if not self._writable.is_set():
            await self._writable.wait()

    def write_json(self, status: int, payload: object, headers: dict[str, str] | None = None) -> None:
        """The client is sent this JSON as a whole answer."""
        body = orjson.dumps(payload)
        lines = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        self.write(head(status, lines) + body)

    def close(self) -> None:
        """What was written is sent, then the connection is closed (FIN)."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """The connection is broken off (RST); what was not sent yet is lost."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()


def _decode_chunked(data: bytearray, start: int) -> tuple[bytes | None, int]:
    """The body and where it ends, or None while chunks are missing. Raises: ValueError for a wrong size line."""
    parts: list[bytes] = []
    while True:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return None, start
        size = int(bytes(data[start:line_end]).split(b";")[0], 16)
        next_start = line_end + 2 + size + 2
        if len(data) < next_start:
            return None, start
        if size == 0:
            return b"".join(parts), next_start
        parts.append(bytes(data[line_end + 2 : line_end + 2 + size]))
        start = next_start
