"""One measurement: a job run by a generator of its own, with what every part used meanwhile."""

import asyncio
import base64
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from tests.load.generator import Job, Outcome
from tests.load.processes import ProcessTree

_REPOSITORY = Path(__file__).resolve().parents[2]


class LoadFailed(RuntimeError):
    """The generator ended without an outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The figures of one job. Times in milliseconds; processor time in microseconds for each answer (or event)."""

    name: str
    clients: int
    answers: int
    failed: int
    examples: tuple[str, ...]
    per_s: float
    p50_ms: float
    p99_ms: float
    first_token_p50_ms: float | None
    first_token_p99_ms: float | None
    events: int
    events_per_s: float
    cpu_us_per_answer: dict[str, float]
    cpu_us_per_event: dict[str, float]
    rss_mb: dict[str, float]


def http_request(method: str, path: str, host: str, headers: Mapping[str, str], body: bytes = b"") -> str:
    """A whole HTTP/1.1 request, base64, as a job takes it."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
    lines.extend(f"{name}: {value}" for name, value in headers.items())
    if body:
        lines.extend(["content-type: application/json", f"content-length: {len(body)}"])
    return base64.b64encode(("\r\n".join(lines) + "\r\n\r\n").encode() + body).decode()


def percentile(sorted_values: list[int], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank), 0 when there is none."""
    if not sorted_values:
        return 0.0
    return float(sorted_values[min(int(len(sorted_values) * share), len(sorted_values) - 1)])


async def measure(name: str, job: Job, parts: Mapping[str, ProcessTree]) -> Measured:
    """The job was run once and these are its figures. Raises: LoadFailed."""
    generator = await _start_generator()
    assert generator.stdin is not None
    assert generator.stdout is not None
    try:
        generator.stdin.write(orjson.dumps(asdict(job)) + b"\n")
        if await generator.stdout.readline() != b"warm\n":
            raise LoadFailed(f"The generator failed while it warmed up for {name}.")
        before = {part: tree.cpu_s() for part, tree in parts.items()}
        generator.stdin.write(b"go\n")
        line = await generator.stdout.readline()
        used = {part: tree.cpu_s() - before[part] for part, tree in parts.items()}
    finally:
        generator.stdin.close()
        if generator.returncode is None:
            await _end(generator)
    if not line:
        raise LoadFailed(f"The generator ended without an outcome for {name}.")
    outcome = Outcome(**orjson.loads(line))
    used["generator"] = outcome.cpu_s
    return _figures(name, job.clients, outcome, used, parts)


async def run_generator(job: Job) -> Outcome:
    """The job was run once, by a generator of its own. Raises: LoadFailed."""
    generator = await _start_generator()
    out, _ = await generator.communicate(orjson.dumps(asdict(job)) + b"\ngo\n")
    lines = out.splitlines()
    if len(lines) != 2:
        raise LoadFailed("The generator ended without an outcome.")
    return Outcome(**orjson.loads(lines[1]))


async def _start_generator() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.load.generator",
        cwd=_REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 28,
    )


async def _end(generator: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(generator.wait(), 5)
    except TimeoutError:
        generator.kill()
        await generator.wait()


def _figures(
    name: str, clients: int, outcome: Outcome, used_s: dict[str, float], parts: Mapping[str, ProcessTree]
) -> Measured:
    latencies, firsts = sorted(outcome.latencies_us), sorted(outcome.first_tokens_us)
    answers, duration_s = len(latencies), outcome.duration_s or 1e-9
    return Measured(
        name=name,
        clients=clients,
        answers=answers,
        failed=outcome.failed,
        examples=tuple(outcome.examples),
        per_s=answers / duration_s,
        p50_ms=percentile(latencies, 0.50) / 1000,
        p99_ms=percentile(latencies, 0.99) / 1000,
        first_token_p50_ms=percentile(firsts, 0.50) / 1000 if firsts else None,
        first_token_p99_ms=percentile(firsts, 0.99) / 1000 if firsts else None,
        events=outcome.events,
        events_per_s=outcome.events / duration_s,
        cpu_us_per_answer={part: used * 1e6 / max(answers, 1) for part, used in used_s.items()},
        cpu_us_per_event={part: used * 1e6 / outcome.events for part, used in used_s.items()} if outcome.events else {},
        rss_mb={part: tree.rss_bytes() / 1e6 for part, tree in parts.items()},
    )
