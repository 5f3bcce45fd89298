"""The load: so many clients, each with one kept-alive connection, each sending its next request when it has its answer.

A process of its own (`python -m tests.load.generator`): a job as one JSON line comes in on standard input; after the
warm-up `warm` goes out; the line `go` starts what is measured; the outcome goes out as one JSON line.
It is written on raw connections, without an HTTP client, because it runs on the same cores as what it measures
(docs/decisions/0082); therefore it understands only what these servers send: a content length, or chunks.
"""

import asyncio
import base64
import re
import resource
import sys
import time
from dataclasses import asdict, dataclass, field

import orjson
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_EVENT = b"data: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to send: client number i sends `requests[i % len]` (whole HTTP requests, base64) again and again.

    Ends after `seconds`, or after `requests_per_client` answers each, whichever comes first. `first_token` is the text
    (base64) that marks the first token of a stream; empty for answers that are not streamed.
    """

    host: str
    port: int
    clients: int
    requests: tuple[str, ...]
    seconds: float
    requests_per_client: int | None = None
    warm_up_s: float = 0.0
    first_token: str = ""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a job. Latencies and first tokens in microseconds, one each answer with status 200.

    `failed` counts other statuses and broken connections, `examples` shows the beginning of a few of them; `statuses`
    counts every answer by its status ("200", "429" …).
    """

    duration_s: float = 0.0
    cpu_s: float = 0.0
    latencies_us: list[int] = field(default_factory=list)
    first_tokens_us: list[int] = field(default_factory=list)
    events: int = 0
    failed: int = 0
    examples: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)


class _Client(asyncio.Protocol):
    """One client on one connection."""

    def __init__(self, request: bytes, run: "_Run") -> None:
        self._request = request
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._answers_left = run.answers_each
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio types it by its base class
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.done.done():
            self._run.failure(f"connection lost: {exc!r}")
            self.done.set_result(None)

    def _send(self) -> None:
        self._head_length = -1
        self._buffer = b""
        self._tail = b""
        self._saw_token = False
        self._sent_s = time.perf_counter()
        if self._transport is not None:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._head_length < 0:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head_length = end + 4
            found = _LENGTH.search(self._buffer, 0, end + 2)
            self._total = end + 4 + int(found[1]) if found else -1
            data = self._buffer[self._head_length :]
            self._received = self._head_length
        self._received += len(data)
        if self._total >= 0:
            if self._received >= self._total:
                self._finish()
            return
        self._read_stream(data)

    def _read_stream(self, data: bytes) -> None:
        """Counts the events, marks the first token, finds the end, also where a read cuts one of them in two."""
        joined = self._tail + data
        keep = self._run.longest_marker - 1
        for position in _positions(joined, _EVENT):
            self._run.outcome.events += position + len(_EVENT) > len(self._tail)
        if not self._saw_token and self._run.first_token in joined:
            self._saw_token = True
            self._run.first_token_after(time.perf_counter() - self._sent_s)
        self._tail = joined[-keep:]
        if joined.endswith(_LAST_CHUNK):
            self._finish()

    def _finish(self) -> None:
        status = self._buffer[9:12]
        self._run.status(status.decode())
        if status == b"200":
            self._run.answered(time.perf_counter() - self._sent_s)
        else:
            self._run.failure(_summary(self._buffer))
        self._answers_left -= 1
        if self._answers_left and time.perf_counter() < self._run.until_s:
            self._send()
            return
        self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()


def _summary(answer: bytes) -> str:
    """The status line and the beginning of the body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (head.partition(b"\r\n")[0] + b": " + body[:300]).decode(errors="replace")


def _positions(data: bytes, marker: bytes) -> list[int]:
    found, start = [], data.find(marker)
    while start >= 0:
        found.append(start)
        start = data.find(marker, start + len(marker))
    return found


class _Run:
    """One run of a job for some seconds."""

    def __init__(self, job: Job, seconds: float, answers_each: int | None) -> None:
        self._job = job
        self._seconds = seconds
        self.answers_each = answers_each or -1
        self.first_token = base64.b64decode(job.first_token) or b"\0"
        self.longest_marker = max(len(self.first_token), len(_EVENT), len(_LAST_CHUNK))
        self.until_s = 0.0
        self.outcome = Outcome()

    def answered(self, after_s: float) -> None:
        self.outcome.latencies_us.append(round(after_s * 1e6))

    def status(self, status: str) -> None:
        self.outcome.statuses[status] = self.outcome.statuses.get(status, 0) + 1

    def first_token_after(self, after_s: float) -> None:
        self.outcome.first_tokens_us.append(round(after_s * 1e6))

    def failure(self, what: str) -> None:
        self.outcome.failed += 1
        if what not in self.outcome.examples and len(self.outcome.examples) < 3:
            self.outcome.examples.append(what)

    async def run(self) -> Outcome:
        """All clients have finished."""
        loop = asyncio.get_running_loop()
        requests = [base64.b64decode(one) for one in self._job.requests]
        cpu_s, began_s = _own_cpu_s(), time.perf_counter()
        self.until_s = began_s + self._seconds
        clients = []
        for number in range(self._job.clients):
            request = requests[number % len(requests)]
            _, client = await loop.create_connection(
                lambda request=request: _Client(request, self),  # type: ignore[misc]  # mypy: default in lambda
                self._job.host,
                self._job.port,
            )
            clients.append(client)
        await asyncio.gather(*(client.done for client in clients))
        self.outcome.duration_s = time.perf_counter() - began_s
        self.outcome.cpu_s = _own_cpu_s() - cpu_s
        return self.outcome


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """One job was done and its outcome printed."""
    raw = orjson.loads(sys.stdin.readline())
    job = Job(**{**raw, "requests": tuple(raw["requests"])})
    if job.warm_up_s:
        uvloop.run(_Run(job, job.warm_up_s, job.requests_per_client).run())
    print("warm", flush=True)
    sys.stdin.readline()
    outcome = uvloop.run(_Run(job, job.seconds, job.requests_per_client).run())
    print(orjson.dumps(asdict(outcome)).decode(), flush=True)


if __name__ == "__main__":
    main()
