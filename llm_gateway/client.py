"""The client's end of one request, in ASGI: its headers and body, whether it is still there, what it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Final

from core.asgi import HAS_OWN_LINE, Receive, Scope, Send
from core.errors import IncompleteBody, TooLarge, UnsupportedMediaType
from llm_gateway.wire.headers import RawHeaders

_JSON: Final = (b"content-type", b"application/json")
EVENT_STREAM: Final[RawHeaders] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back
]


class Client:
    """One HTTP exchange. `gone` is true once the client has closed the connection.

    `standing` are the headers that go with whatever answer there will be, `limits` those about what is left of the
    caller's limits; `request_id` is the one in `x-request-id`; `asked_model` is the public name in its body, once that
    was read. `provider_s` is the time before the answer that was a provider's: the rest was ours.
    """

    __slots__ = (
        "_receive",
        "_send",
        "_state",
        "_watcher",
        "answer_began",
        "asked_model",
        "began_s",
        "gone",
        "headers",
        "limits",
        "provider_s",
        "request_id",
        "standing",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.began_s = perf_counter()
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False
        self.answer_began = False
        self.asked_model: str | None = None
        self.standing: RawHeaders = []
        self.limits: RawHeaders = []
        self.provider_s = 0.0
        self._state: dict[str, object] = scope.get("state", {})
        self.request_id = str(self._state.get("request_id", ""))

    def has_own_log_line(self) -> None:
        """A line of the log is about this request, so the access log need not have another."""
        self._state[HAS_OWN_LINE] = True

    def header(self, name: bytes) -> str | None:
        """The value of this header (name in lower case)."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def json_body(self, *, max_bytes: int) -> bytes:
        """The whole body, announced as JSON. Raises: UnsupportedMediaType, TooLarge, IncompleteBody."""
        media_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type != b"application/json":
            raise UnsupportedMediaType
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UnsupportedMediaType
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise IncompleteBody
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > max_bytes:
                raise TooLarge(f"The body is larger than {max_bytes} bytes.")
            if not message.get("more_body", False):
                return b"".join(pieces)

    def watch(self, when_gone: Callable[[], object]) -> None:
        """From here on `when_gone` is called once, should the client close the connection."""
        self._watcher = asyncio.create_task(self._watch(when_gone), name="watch client")

    def stop_watching(self) -> None:
        """`when_gone` will not be called any more."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self, when_gone: Callable[[], object]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        await asyncio.sleep(0)  # the loop looks once what has come from the provider by now, and is to be charged
        when_gone()

    async def answer_json(self, status: int, body: bytes, headers: RawHeaders) -> None:
        """The whole answer has been handed to the server."""
        await self._begin(status, [_JSON, (b"content-length", b"%d" % len(body)), *headers])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def begin_stream(self, headers: RawHeaders) -> None:
        """Status 200 and the headers of an event stream have been handed to the server."""
        await self._begin(200, [*EVENT_STREAM, *headers])

    async def send(self, piece: bytes) -> None:
        """The piece has been handed to the server, which may make us wait for a slow client."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end_stream(self) -> None:
        """The answer is complete."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, status: int, headers: RawHeaders) -> None:
        self.answer_began = True
        overhead_s = perf_counter() - self.began_s - self.provider_s
        ours: RawHeaders = [(b"x-buttress-overhead-ms", b"%.2f" % (overhead_s * 1000)), *self.standing, *self.limits]
        await self._send({"type": "http.response.start", "status": status, "headers": headers + ours})
