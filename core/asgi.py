"""The outermost layer of both services: what holds for every request, whatever answers it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Final

import orjson

from core.errors import (
    ButtressError,
    IncompleteBody,
    InternalFault,
    InvalidInput,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)
from core.logging import get_logger
from core.request_id import HEADER, accept_request_id, request_id_var

log = get_logger(__name__)

# ASGI's own types are dictionaries of anything: https://asgi.readthedocs.io/en/latest/specs/main.html
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RenderError = Callable[[ButtressError, str, Scope], bytes]

_REQUEST_ID: Final = HEADER.encode()
_SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),  # answers depend on who asks; a route that may be cached says so itself
)
_HSTS: Final = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
# True in `scope["state"]` where the application has written a line about this request that says more than ours would.
HAS_OWN_LINE: Final = "has_own_log_line"
# Headers that say who asks, and for whom. Of two of them the first could be believed by one and the second by another.
_ONCE: Final = frozenset({b"authorization", b"x-api-key", b"x-buttress-workspace"})
_PROBES: Final = ("/health/", "/metrics")  # asked every few seconds, by machines
# A body may keep us waiting this long, and longer the more of it has come: docs/decisions/0046.
_BODY_WAIT_S: Final = 10.0
_SLOWEST_BYTES_PER_S: Final = 16 * 1024
# Whoever is cut off while still sending sees a broken connection instead of the refusal, so this much is let in first.
_DRAINED_BYTES: Final = 64 * 1024 * 1024
_DRAIN_S: Final = 5.0


def render_envelope(error: ButtressError, request_id: str, _scope: Scope) -> bytes:
    """The API's failure envelope as JSON."""
    return orjson.dumps(error.body(request_id), default=str)


def log_failure(error: ButtressError) -> None:
    """A failure that is not the caller's is one log line, with its cause.

    One of somebody else's without a cause says it all by its code: that it was raised here helps nobody.
    """
    if error.status >= 500:
        traceback = error if error.status == 500 or error.__cause__ is not None else None
        log.warning("request_failed", code=error.code, status=error.status, exc_info=traceback)


class Edge:
    """Wraps a whole ASGI application: request id, security headers, body limit, access log, an answer for every fault.

    Sets `scope["state"]["request_id"]` and `request_id_var`, and sends `x-request-id`. Buffers nothing. Only what the
    application lets escape is answered here, as `render_error` writes it. While it `is_leaving` each answer ends its
    connection. An Edge inside an Edge passes straight through, so that a service may be mounted in another.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        max_body_bytes: int = 10 * 1024 * 1024,
        production: bool = False,
        render_error: RenderError = render_envelope,
        body_wait_s: float = _BODY_WAIT_S,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.body_wait_s = body_wait_s
        self.headers = (*_SECURITY_HEADERS, _HSTS) if production else _SECURITY_HEADERS
        self.render_error = render_error
        self.is_leaving = is_leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "request_id" in scope.get("state", ()):
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        exchange.accept_request_id()
        token = request_id_var.set(exchange.request_id)
        try:
            await exchange.run()
        finally:
            exchange.log_access()
            request_id_var.reset(token)


class _Exchange:
    """One request and its answer on their way through the edge."""

    __slots__ = (
        "body_is_complete", "bytes_in", "bytes_out", "edge", "first_byte_s", "inner_receive", "inner_send", "path",
        "request_id", "scope", "started_s", "status", "waited_s",
    )  # fmt: skip

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge = edge
        self.scope = scope
        self.inner_receive = receive
        self.inner_send = send
        self.started_s = time.perf_counter()
        self.first_byte_s: float | None = None
        self.status: int | None = None
        self.path: str = scope["path"]  # as it came: whoever mounts an application may take its prefix away
        self.body_is_complete = False
        self.bytes_in = 0
        self.bytes_out = 0
        self.waited_s = 0.0
        self.request_id = ""

    async def run(self) -> None:
        """The application has answered, or what it let escape has been logged once and answered in its place.

        After the answer began nothing can be said any more: it stays unfinished, which servers turn into a broken
        transfer, so that no client takes half an answer for a whole one.
        """
        try:
            self.refuse_unreadable_request()
            await self.edge.app(self.scope, self.receive, self.send)
        except ButtressError as error:
            log_failure(error)
            await self.answer(error)
        except Exception as error:  # the last line of defence: whatever it is, the caller gets an answer
            log.exception("unhandled_error", exc_info=error)
            await self.answer(InternalFault())

    def accept_request_id(self) -> None:
        """The request has its id: the caller's own when it is a safe one."""
        own = next((value for name, value in self.scope["headers"] if name == _REQUEST_ID), None)
        self.request_id = accept_request_id(own.decode("latin-1") if own is not None else None)
        # A copy, because a server may hand the same dictionary to every request.
        self.scope["state"] = {**self.scope.get("state", {}), "request_id": self.request_id}

    def refuse_unreadable_request(self) -> None:
        """Raises: TooLarge, UnsupportedMediaType, InvalidInput, for what need not even be read to be refused."""
        seen = set()
        for name, value in self.scope["headers"]:
            if name in _ONCE:
                if name in seen:
                    # whoever stands before us may have looked at the other one
                    raise InvalidInput(f"The header `{name.decode()}` came twice.", code="duplicate_header")
                seen.add(name)
            if name == b"content-length":
                if not value.isdigit():
                    raise InvalidInput("The Content-Length header is not a number.", code="invalid_content_length")
                if int(value[:20]) > self.edge.max_body_bytes:
                    raise self.too_large()
            elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
                raise UnsupportedMediaType(
                    "Send the body as it is: compressed bodies are not read.", code="content_encoding_not_supported"
                )

    def too_large(self) -> TooLarge:
        limit = self.edge.max_body_bytes
        return TooLarge(f"The body may have {limit:,} bytes at most.", details={"max_bytes": limit})

    async def receive(self) -> Message:
        if self.body_is_complete:
            return await self.inner_receive()  # only the client's leaving is left to come, whenever that is
        began_s = time.perf_counter()
        left_s = self.edge.body_wait_s + self.bytes_in / _SLOWEST_BYTES_PER_S - self.waited_s
        try:
            async with asyncio.timeout(left_s):
                message = await self.inner_receive()
        except TimeoutError:
            raise RequestTimeout from None
        if message["type"] == "http.disconnect":
            raise IncompleteBody  # so granian says, too, that it could not make sense of what came
        self.waited_s += time.perf_counter() - began_s
        self.count(message)
        if self.bytes_in > self.edge.max_body_bytes:
            raise self.too_large()
        return message

    def count(self, message: Message) -> None:
        self.bytes_in += len(message.get("body", b""))
        self.body_is_complete = not message.get("more_body", False)

    async def drain(self) -> None:
        """A client that is still sending what is too large has sent it, or enough of it, or had its time."""
        if any(name == b"expect" for name, _ in self.scope["headers"]):
            return  # it waits for our word, and reading would be the word to send
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while not self.body_is_complete and self.bytes_in <= self.edge.max_body_bytes + _DRAINED_BYTES:
                    self.count(await self.inner_receive())

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status == TooLarge.status:
                await self.drain()
            self.first_byte_s = time.perf_counter()
            headers = [*message.get("headers", ())]
            names = {name for name, _ in headers}
            headers += [header for header in self.edge.headers if header[0] not in names]
            headers.append((_REQUEST_ID, self.request_id.encode()))
            if self.edge.is_leaving() and b"connection" not in names:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        elif body := message.get("body"):
            self.bytes_out += len(body)
        await self.inner_send(message)

    async def answer(self, error: ButtressError) -> None:
        """`error` is the answer, unless another one has begun."""
        if self.status is not None:
            return
        body = self.edge.render_error(error, self.request_id, self.scope)
        headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if isinstance(error, TooLarge | UnsupportedMediaType | RequestTimeout | IncompleteBody):
            headers.append((b"connection", b"close"))  # the rest of the body is not worth reading
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def log_access(self) -> None:
        """One line says what was asked and how it went; never the query, which may hold tokens.

        None, where the application has written one that says more. Units: milliseconds since the request arrived.
        status is null when the client left before the answer began.
        """
        if self.scope["state"].get(HAS_OWN_LINE):
            return
        write = log.debug if self.path.startswith(_PROBES) else log.info
        now_s = time.perf_counter()
        write(
            "request",
            method=self.scope["method"],
            path=self.path,
            status=self.status,
            first_byte_ms=self.elapsed_ms(self.first_byte_s),
            duration_ms=self.elapsed_ms(now_s),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )

    def elapsed_ms(self, at_s: float | None) -> float | None:
        return None if at_s is None else round((at_s - self.started_s) * 1000, 2)
