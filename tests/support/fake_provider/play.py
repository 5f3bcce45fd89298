"""Plays one step on one connection: the answer, in time or late, whole or broken."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from tests.support.fake_provider.answer import Answer, Call, compose
from tests.support.fake_provider.bill import BillLine, Counts, Ledger
from tests.support.fake_provider.http_server import LAST_CHUNK, Connection, Request, head, http_chunk
from tests.support.fake_provider.steps import Step
from tests.support.fake_provider.wire import Event, Format

_HEAD_PIECES = 10
_NONSENSE = b'{"id": nonsense,,}'
_MESSAGES = {
    400: "The request is not valid.",
    401: "Incorrect API key provided.",
    403: "Your account may not use this.",
    404: "The model does not exist or you do not have access to it.",
    429: "Rate limit reached for requests.",
    500: "The server had an error while processing your request. Sorry about that!",
    503: "The engine is currently overloaded, please try again later.",
    529: "Overloaded",
}


class _Cut(Exception):
    """The script ends the answer here."""


class Gate:
    """Where held requests wait until somebody releases them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: deque[asyncio.Event] = deque()

    async def wait(self) -> None:
        """The request was released."""
        released = asyncio.Event()
        self._waiting.append(released)
        self._ledger.counts.held += 1
        self._ledger.tell()
        try:
            await released.wait()
        finally:
            self._ledger.counts.held -= 1
            if released in self._waiting:
                self._waiting.remove(released)

    def release(self, count: int | None) -> int:
        """The first `count` held requests (None: all) go on; answers how many."""
        number = len(self._waiting) if count is None else min(count, len(self._waiting))
        for _ in range(number):
            self._waiting.popleft().set()
        return number


@dataclass(slots=True)
class Play:
    """One request's answer while it is played. `line` is kept true at every moment."""

    request: Request
    connection: Connection
    style: Format
    call: Call
    step: Step
    line: BillLine
    ledger: Ledger
    gate: Gate
    counts: Counts

    async def run(self) -> None:
        """The step was played to its end, or the client left; the bill's line is closed."""
        began_s = time.monotonic()
        try:
            await self._run()
        except _Cut:
            self.line.outcome = "cut"
        except asyncio.CancelledError:
            self.line.outcome = "client_gone"
            raise
        finally:
            self.ledger.close(self.line, self.counts, time.monotonic() - began_s)

    async def _run(self) -> None:
        step = self.step
        answer = compose(self.call, step, number=self.line.number, created_s=int(time.time()))
        if step.status == 200 and step.connection in ("none", "never_answer") and not self.style.free:
            # A request that is not going to be refused is worked on from its arrival, also when nobody waits for it.
            self.line.input_tokens, self.line.cached_input_tokens = answer.input_tokens, answer.cached_input_tokens
        if step.hold_before_headers:
            await self.gate.wait()
        if step.delay_before_headers_s:
            await asyncio.sleep(step.delay_before_headers_s)
        if step.connection != "none":
            await self._break_off()
        elif step.status != 200:
            self._refuse()
        else:
            await self._answer(answer)

    async def _break_off(self) -> None:
        if self.step.connection == "never_answer":
            await asyncio.Event().wait()
        self.line.outcome = "no_answer"
        if self.step.connection == "reset":
            self.connection.reset()
        else:
            self.connection.close()

    def _refuse(self) -> None:
        step, status = self.step, self.step.status
        message = step.error_message or _MESSAGES.get(status, "The request failed.")
        if step.echoes_authorization:
            message += (
                f" You sent: {self.request.headers.get('authorization') or self.request.headers.get('x-api-key')}."
            )
        headers = self._headers()
        if step.retry_after_s is not None:
            headers["retry-after"] = f"{step.retry_after_s:g}"
        if step.redirect_to is not None:
            headers["location"] = step.redirect_to
        self.line.outcome, self.line.status = "refused", status
        self.connection.write_json(status, self.style.error(status, message), headers)

    async def _answer(self, answer: Answer) -> None:
        self.line.status = 200
        if self.call.stream:
            await self._stream(answer)
        else:
            await self._whole(answer)
        self.line.outcome = "answered"

    async def _whole(self, answer: Answer) -> None:
        reply = self.style.reply(self.call, answer)
        if self.style.has_output and not self.style.free:
            self.line.output_tokens, self.line.reasoning_tokens = answer.output_tokens, answer.reasoning_tokens
        if not self.step.delay_before_first_chunk_s and not self.step.slow_headers_s and self.step.body == "none":
            self.line.usage_reported = self.style.reports_usage(reply)
            self.connection.write_json(200, reply, self._headers())
            return
        body, kind, promised = _broken(orjson.dumps(reply), self.step)
        await self._send_head({"content-type": kind, "content-length": str(promised)})
        await asyncio.sleep(self.step.delay_before_first_chunk_s)
        self.line.usage_reported = self.step.body in ("none", "empty_choices") and self.style.reports_usage(reply)
        self.connection.write(body)
        if len(body) < promised:
            self.connection.close()
            raise _Cut

    async def _stream(self, answer: Answer) -> None:
        await self._send_head({"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
        if self.step.delay_before_first_chunk_s:
            await asyncio.sleep(self.step.delay_before_first_chunk_s)
        if self.step.sse is None:
            await self._send_events(self.style.events(self.call, answer))
        else:
            await self._send(self.step.sse.encode())
        if self.step.hold_before_end:
            await self.gate.wait()
        self.connection.write(LAST_CHUNK)

    async def _send_events(self, events: Iterator[Event]) -> None:
        step, line = self.step, self.line
        await self._between_chunks()
        for event in events:
            is_chunk = event.output_tokens > 0 and event.data != b""
            if is_chunk and line.chunks:
                # Also without a delay the loop gets its turn: a client that leaves is noticed between two chunks.
                await asyncio.sleep(step.delay_between_chunks_s)
            line.output_tokens += event.output_tokens
            if not event.data:
                line.reasoning_tokens += event.output_tokens
                continue
            await self._send(event.data)
            line.usage_reported = line.usage_reported or event.reports_usage
            if is_chunk:
                line.chunks += 1
                self.ledger.counts.chunks += 1
                self.ledger.tell()
                await self._between_chunks()

    async def _between_chunks(self) -> None:
        """What the script wants after this many chunks: a comment, a hold, an error, a cut."""
        step, chunks = self.step, self.line.chunks
        if step.keep_alive_comments:
            await self._send(b": keep-alive\n\n")
        if step.hold_after_chunks == chunks:
            await self.gate.wait()
        if step.error_after_chunks == chunks:
            await self._send(self.style.error_event(step.error_message or _MESSAGES[500]))
            self.connection.write(LAST_CHUNK)
            raise _Cut
        if step.cut_after_chunks == chunks:
            await self._cut()

    async def _cut(self) -> None:
        await self.connection.drain()
        if self.step.cut == "end":
            self.connection.write(LAST_CHUNK)
        elif self.step.cut == "close":
            self.connection.close()
        else:
            await asyncio.sleep(0)  # what was written is on its way before the reset
            self.connection.reset()
        raise _Cut

    async def _send(self, data: bytes) -> None:
        if self.step.split_bytes is None:
            self.connection.write(http_chunk(data))
        else:
            for start in range(0, len(data), self.step.split_bytes):
                self.connection.write(http_chunk(data[start : start + self.step.split_bytes]))
                await asyncio.sleep(0)  # each piece is a packet of its own
        await self.connection.drain()

    async def _send_head(self, headers: dict[str, str]) -> None:
        data = head(200, headers | self._headers())
        if not self.step.slow_headers_s:
            self.connection.write(data)
            return
        size = -(-len(data) // _HEAD_PIECES)
        for start in range(0, len(data), size):
            self.connection.write(data[start : start + size])
            await asyncio.sleep(self.step.slow_headers_s / _HEAD_PIECES)

    def _headers(self) -> dict[str, str]:
        return {**self.style.headers, self.style.id_header: f"req_fake{self.line.number:08d}", **self.step.headers}


def _broken(body: bytes, step: Step) -> tuple[bytes, str, int]:
    """The body as the step wants it broken, its content type, and the length that is promised."""
    half = body[: len(body) // 2]
    page = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
    kinds: dict[str, tuple[bytes, str, int]] = {
        "malformed_json": (_NONSENSE, "application/json", len(_NONSENSE)),
        "half_json": (half, "application/json", len(half)),
        "cut_json": (half, "application/json", len(body)),
        "wrong_content_type": (page, "text/html", len(page)),
        "empty": (b"", "application/json", 0),
    }
    return kinds.get(step.body, (body, "application/json", len(body)))
