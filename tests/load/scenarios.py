"""The measurements of one run, in the order that puts each one beside what it is compared with."""

import base64
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import psutil

from tests.load.generator import Job
from tests.load.measure import Measured, http_request, measure
from tests.load.subjects import (
    CHUNKS_PER_STREAM,
    MODEL,
    STREAM_MODEL,
    Accounts,
    ColdStart,
    Subjects,
    cold_start,
    ledger_counts,
)
from tests.support.callers import Caller

USERS = 128
PROVIDER = "bare provider"
GATEWAY = "gateway"
GATEWAY_ONE_USER = "gateway, one user"
_MESSAGES = [{"role": "user", "content": "Say in one sentence what a buttress is, please."}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured. `seconds` is for each row; streams end by count, not by time."""

    clients: tuple[int, ...] = (1, 32, 128)
    api_clients: tuple[int, ...] = (1, 32)
    seconds: float = 2.5
    warm_up_s: float = 0.5
    answers_per_client: int | None = None
    streams: int = 50
    streams_per_client: int = 2
    cold_starts: int = 3


QUICK = Extent(
    clients=(1, 32), api_clients=(32,), seconds=0.5, warm_up_s=0.2, streams=20, streams_per_client=1, cold_starts=1
)


@dataclass(slots=True, kw_only=True)
class Report:
    """Everything one run found."""

    machine: str
    extent: Extent
    calls: list[Measured] = field(default_factory=list)
    streams: list[Measured] = field(default_factory=list)
    requests: list[Measured] = field(default_factory=list)
    cold_starts: list[ColdStart] = field(default_factory=list)
    accounts: Accounts | None = None

    @property
    def failures(self) -> list[str]:
        """A sentence for each row in which requests failed, with the first answers that were not 200."""
        rows = [*self.calls, *self.streams, *self.requests]
        return [
            f"{row.name}, {row.clients} clients: {row.failed} failed; {row.examples[0]}" for row in rows if row.failed
        ]


def describe_machine() -> str:
    """The machine in one line, with the commit and what else it is busy with."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    memory_gb = int(psutil.virtual_memory().total) / 1e9
    python = f"Python {platform.python_version()}"
    system = f"{sys.platform} {platform.machine()}"
    busy = f"load average {os.getloadavg()[0]:.1f} before the run"
    return f"{psutil.cpu_count()} cores, {memory_gb:.0f} GB, {system}, {python}, commit {commit or 'unknown'}, {busy}"


class Bench:
    """One run; `tell` hears a line before each measurement."""

    def __init__(self, subjects: Subjects, extent: Extent, machine: str, tell: Callable[[str], None]) -> None:
        self._machine = machine
        self._subjects = subjects
        self._extent = extent
        self._tell = tell
        self._provider_calls = 0
        self._provider_tokens = 0

    async def run(self) -> Report:
        """Every row was measured, each right after what it is compared with."""
        extent = self._extent
        report = Report(machine=self._machine, extent=extent)
        for number in range(extent.cold_starts):
            self._tell(f"cold start {number + 1}")
            report.cold_starts.append(cold_start(self._subjects))
        for clients in extent.clients:
            report.calls.append(await self._call_provider(clients))
            report.calls.append(await self._call_gateway(GATEWAY, clients, self._subjects.callers))
        one_user = self._subjects.callers[:1]
        report.calls.append(await self._call_gateway(GATEWAY_ONE_USER, extent.clients[-1], one_user))
        report.streams = [await self._stream_from_provider(), await self._stream_through_gateway()]
        for clients in extent.api_clients:
            for path, table in (("/v1/me", "profiles"), ("/v1/workspaces", "workspaces")):
                report.requests.append(await self._read_postgrest(table, clients))
                report.requests.append(await self._read_api(path, clients))
        calls, tokens = await ledger_counts(self._subjects)
        report.accounts = Accounts(
            ledger_calls=calls,
            ledger_tokens=tokens,
            provider_calls=self._provider_calls,
            provider_tokens=self._provider_tokens,
        )
        return report

    async def _call_provider(self, clients: int) -> Measured:
        host, port = self._subjects.provider_address
        request = http_request("POST", "/v1/chat/completions", host, {}, _chat(MODEL))
        return await self._measure(PROVIDER, self._job(host, port, clients, (request,)))

    async def _call_gateway(self, name: str, clients: int, callers: tuple[Caller, ...]) -> Measured:
        return await self._billed(name, self._gateway_job(clients, callers, _chat(MODEL)))

    async def _stream_from_provider(self) -> Measured:
        host, port = self._subjects.provider_address
        request = http_request("POST", "/v1/chat/completions", host, {}, _chat(STREAM_MODEL, stream=True))
        return await self._measure(PROVIDER, self._streamed(self._job(host, port, self._extent.streams, (request,))))

    async def _stream_through_gateway(self) -> Measured:
        body = _chat(STREAM_MODEL, stream=True)
        job = self._gateway_job(self._extent.streams, self._subjects.callers, body)
        return await self._billed(GATEWAY, self._streamed(job))

    async def _read_postgrest(self, table: str, clients: int) -> Measured:
        host, port = self._subjects.supabase_address
        key = {"apikey": self._subjects.stack.publishable_key, "accept-profile": "api"}
        path = f"/rest/v1/{table}?select=*&limit=20"
        requests = tuple(
            http_request("GET", path, host, key | caller.headers) for caller in self._subjects.callers[:clients]
        )
        return await self._measure(f"PostgREST {table}", self._job(host, port, clients, requests))

    async def _read_api(self, path: str, clients: int) -> Measured:
        host, port = self._subjects.api_address
        requests = tuple(http_request("GET", path, host, caller.headers) for caller in self._subjects.callers[:clients])
        return await self._measure(f"GET {path}", self._job(host, port, clients, requests))

    def _gateway_job(self, clients: int, callers: tuple[Caller, ...], body: bytes) -> Job:
        host, port = self._subjects.api_address
        requests = tuple(
            http_request("POST", "/llm/v1/chat/completions", host, caller.headers, body) for caller in callers
        )
        return self._job(host, port, clients, requests)

    def _job(self, host: str, port: int, clients: int, requests: tuple[str, ...]) -> Job:
        return Job(
            host=host,
            port=port,
            clients=clients,
            requests=requests,
            seconds=self._extent.seconds,
            warm_up_s=self._extent.warm_up_s,
            requests_per_client=self._extent.answers_per_client,
        )

    def _streamed(self, job: Job) -> Job:
        # Bounded by their count: a stream that is cut off by the clock would not be whole.
        first_token = base64.b64encode(b'"content":"word0').decode()
        each = self._extent.streams_per_client
        return replace(job, seconds=60.0, warm_up_s=0.0, requests_per_client=each, first_token=first_token)

    async def _measure(self, name: str, job: Job) -> Measured:
        self._tell(f"{name}, {job.clients} clients")
        return await measure(name, job, self._subjects.parts)

    async def _billed(self, name: str, job: Job) -> Measured:
        """As `_measure`; what the provider worked for meanwhile is added to what the ledger must have."""
        before = self._subjects.provider.bill()
        measured = await self._measure(name, job)
        after = self._subjects.provider.bill()
        self._provider_calls += after.counts.closed - before.counts.closed
        self._provider_tokens += after.input_tokens + after.output_tokens - before.input_tokens - before.output_tokens
        return measured


def _chat(model: str, *, stream: bool = False) -> bytes:
    limit = 2 * CHUNKS_PER_STREAM
    return orjson.dumps({"model": model, "stream": stream, "max_tokens": limit, "messages": _MESSAGES})
