"""What is measured: the real stack, the API with its gateway, the fake provider, and people who may call a lot."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import asyncpg
import orjson

from stack import api
from stack.config import HOST
from stack.processes import Child
from tests.load.processes import ProcessTree
from tests.support.callers import Caller, new_caller
from tests.support.fake_provider import FakeProvider, Match, Step
from tests.support.gateway_ledger import OUT_OF_REACH, set_limits
from tests.support.pools import AS_IN_SERVICE_S
from tests.support.stack import RunningStack, free_ports, running_stack

MODEL = "bench"
STREAM_MODEL = "bench-stream"
CHUNKS_PER_STREAM = 100
CHUNK_EVERY_S = 0.01
_READY_TIMEOUT_S = 60.0


class NotReady(RuntimeError):
    """A server did not answer in time."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """Everything that runs. `parts` are the processes whose use of processor and memory is reported."""

    stack: RunningStack
    provider: FakeProvider
    callers: tuple[Caller, ...]
    environment: dict[str, str]
    parts: dict[str, ProcessTree]

    @property
    def api_address(self) -> tuple[str, int]:
        return HOST, self.stack.config.api_port

    @property
    def provider_address(self) -> tuple[str, int]:
        return HOST, urlsplit(self.provider.url).port or 80

    @property
    def supabase_address(self) -> tuple[str, int]:
        return HOST, self.stack.config.supabase_port


@contextmanager
def running_subjects(users: int, *, more_models: tuple[str, ...] = ()) -> Iterator[Subjects]:
    """Everything runs and is warm; nothing of it is left afterwards. `more_models` are in the catalogue, too."""
    with running_stack() as stack, FakeProvider.start(keep=100) as provider:
        provider.script(
            Step(
                match=Match(model=STREAM_MODEL),
                times=0,
                output_tokens=CHUNKS_PER_STREAM,
                delay_between_chunks_s=CHUNK_EVERY_S,
            )
        )
        callers = asyncio.run(_callers(stack, users))
        environment = stack.environment(database_deadline_s=AS_IN_SERVICE_S) | {
            "BUTTRESS_MODELS_FILE": str(_models_file(stack, provider, (MODEL, STREAM_MODEL, *more_models))),
            "BUTTRESS_LOG_LEVEL": "INFO",
        }
        child = stack.start(api.part(stack.config, environment))
        wait_until_answers(child, stack.config.api_port, "/health/live")
        children = stack.family.children
        parts = {
            "provider": ProcessTree(provider.pid),
            "api": ProcessTree(child.process.pid),
            "postgres": ProcessTree(children["postgres"].process.pid),
            "supabase": ProcessTree(children["supabase"].process.pid),
        }
        yield Subjects(stack, provider, callers, environment, parts)


def _models_file(stack: RunningStack, provider: FakeProvider, names: tuple[str, ...]) -> str:
    models = [
        {
            "name": name,
            "context_window": 128_000,
            "max_output_tokens": 4_096,
            "deployments": [
                {
                    "base_url": f"{provider.url}/v1",
                    "model": name,
                    "price_usd_per_million_tokens": {"input": 0.15, "output": 0.6},
                }
            ],
        }
        for name in names
    ]
    path = stack.state_dir / "bench-models.toml"
    path.write_text("models = " + _toml(models) + "\n")
    return str(path)


def _toml(value: object) -> str:
    """The value as inline TOML: JSON, but for `=` between a name and its value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    return orjson.dumps(value).decode()


async def _callers(stack: RunningStack, users: int) -> tuple[Caller, ...]:
    """People whose limits are the highest there are: what is measured is their keeping, not their refusal."""
    database = await asyncpg.connect(stack.database_url)
    try:
        callers = [await new_caller(stack, database) for _ in range(users)]
        for caller in callers:
            await set_limits(database, caller, **OUT_OF_REACH)
    finally:
        await database.close()
    return tuple(callers)


def wait_until_answers(child: Child, port: int, path: str, headers: dict[str, str] | None = None) -> None:
    """The server answers 200. Raises: NotReady; PartFailed when its process has ended."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        child.require_running()
        connection = HTTPConnection(HOST, port, timeout=_READY_TIMEOUT_S)
        try:
            connection.request("GET", path, headers=headers or {})
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.002)
    raise NotReady(f"{child.part.name} did not answer {path} within {_READY_TIMEOUT_S:.0f} s.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """One start of the API: from its command to its answers, and the memory it had then."""

    live_ms: float
    first_answer_ms: float
    rss_mb: float


def cold_start(subjects: Subjects) -> ColdStart:
    """A second API process was started, asked for its health and for `GET /v1/me`, and stopped."""
    (port,) = free_ports(1)
    config = replace(subjects.stack.config, api_port=port)
    part = replace(api.part(config, subjects.environment), name="api-cold")
    began_s = time.perf_counter()
    child = subjects.stack.start(part)
    wait_until_answers(child, port, "/health/live")
    live_s = time.perf_counter() - began_s
    wait_until_answers(child, port, "/v1/me", subjects.callers[0].headers)
    answer_s = time.perf_counter() - began_s
    rss_mb = ProcessTree(child.process.pid).rss_bytes() / 1e6
    subjects.stack.family.stop(part.name)
    return ColdStart(live_ms=live_s * 1000, first_answer_ms=answer_s * 1000, rss_mb=rss_mb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Two counts of the same calls: the ledger's rows, and the provider's own bill."""

    ledger_calls: int
    ledger_tokens: int
    provider_calls: int
    provider_tokens: int

    @property
    def agree(self) -> bool:
        return (self.ledger_calls, self.ledger_tokens) == (self.provider_calls, self.provider_tokens)


async def ledger_counts(subjects: Subjects) -> tuple[int, int]:
    """How many calls were settled and their tokens, once no call is held any more (or after ten seconds)."""
    database = await asyncpg.connect(subjects.stack.database_url)
    try:
        for _ in range(200):
            if not await database.fetchval("select exists (select from gateway.holds)"):
                break
            await asyncio.sleep(0.05)
        row = await database.fetchrow(
            "select count(*) as calls, coalesce(sum(input_tokens + output_tokens), 0)::bigint as tokens"
            " from gateway.usage where state = 'settled'"
        )
    finally:
        await database.close()
    assert row is not None
    return int(row["calls"]), int(row["tokens"])
