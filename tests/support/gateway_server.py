"""The gateway alone (`python -m llm_gateway`), on the tests' own stack, with the fake provider behind it."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from stack.http_probe import wait_until_answers
from stack.processes import Child, Part
from tests.support.callers import Caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider
from tests.support.held_memory import AT_START, HELD_FILE_VARIABLE, Held, held_by
from tests.support.pools import PATIENCE_S, READY_WITHIN_S
from tests.support.stack import RunningStack, free_ports

PROVIDER_KEY = "canary-provider-key-7f3a"
PAGE = "https://app.example.com"  # whose scripts may call it
# The first call that is translated waits for litellm's import: four seconds of a processor that all others want, too.
ANSWERED_WITHIN_S = 90.0

# Prices in US dollars for a million tokens: 1 and 2, so a token costs 1000 and 2000 nano-dollars.
INPUT_NANO_USD, OUTPUT_NANO_USD = 1000, 2000

_IMPATIENT = """
[[models]]
name = "fake/{name}"
context_window = 8192
max_output_tokens = 256

[[models.deployments]]
base_url = "{{url}}/v1"
native = ["chat", "responses", "embeddings"]
model = "scripted"
price_usd_per_million_tokens = {{{{ input = 1, output = 2 }}}}
timeouts = {{{{ {timeout} }}}}
"""
# Each is impatient in one thing only, and longer than a busy machine needs for what is to come before.
_IMPATIENT_MODELS_TOML = "".join(
    _IMPATIENT.format(name=name, timeout=timeout)
    for name, timeout in [
        ("impatient", "first_byte_s = 1.5"),
        ("impatient-of-silence", "idle_s = 1.5"),
        ("impatient-of-length", "total_s = 2.0"),
    ]
)
MODELS_TOML = (
    _IMPATIENT_MODELS_TOML
    + """
[[models]]
name = "fake/chat"
description = "Does as scripted."
note = "Whatever it says, it was told to say."
context_window = 8192
max_output_tokens = 256
image_tokens = 100
endpoints = ["chat", "responses", "embeddings", "messages", "count_tokens"]

[[models.deployments]]
base_url = "{url}/v1"
native = ["chat", "responses", "embeddings"]
api_key_env = "FAKE_PROVIDER_KEY"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, cached_input = 0.1, output = 2 }}

[[models]]
name = "fake/priced"
description = "Every class of tokens has a price of its own, and its vocabulary is known."
context_window = 100_000
max_output_tokens = 256
tokenizer = "o200k_base"

[[models.deployments]]
base_url = "{url}/v1"
model = "scripted"

[models.deployments.price_usd_per_million_tokens]
input = 1
cached_input = 0.1
cache_write_5m = 1.25
cache_write_1h = 2
input_audio = 10
output = 4
reasoning = 5
output_audio = 20

[[models.deployments.price_tiers_usd_per_million_tokens]]
service_tier = "priority"
input = 2
output = 8

[[models.deployments.price_tiers_usd_per_million_tokens]]
above_prompt_tokens = 50_000
input = 3
output = 6

[[models]]
name = "fake/gpt"
description = "One of OpenAI's: its name says which vocabulary it has, and its template is known."
context_window = 100_000
max_output_tokens = 256

[[models.deployments]]
provider = "openai"
base_url = "{url}/v1"
api_key_env = "FAKE_PROVIDER_KEY"
model = "gpt-5-mini"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}

[[models]]
name = "fake/tiers"
description = "Three services, and an account that gets the dearest one unasked."
context_window = 100_000
max_output_tokens = 256

[[models.deployments]]
provider = "openai"
base_url = "{url}/v1"
api_key_env = "FAKE_PROVIDER_KEY"
model = "scripted"
unasked_service_tier = "priority"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}
price_tiers_usd_per_million_tokens = [
    {{ service_tier = "priority", input = 2, output = 4 }},
    {{ service_tier = "flex", input = 0.5, output = 1 }},
]

[[models]]
name = "fake/o-series"
context_window = 8192
max_output_tokens = 256

[[models.deployments]]
base_url = "{url}/v1"
model = "scripted"
max_output_field = "max_completion_tokens"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}

[[models]]
name = "fake/asked-again"
context_window = 8192
max_output_tokens = 256

[[models.deployments]]
base_url = "{url}/v1"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}

[[models]]
name = "fake/unreachable"
context_window = 8192
max_output_tokens = 256

[[models.deployments]]
base_url = "{refused_url}/v1"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}

[[models]]
name = "fake/with-fallback"
context_window = 8192
max_output_tokens = 256
fallbacks = ["fake/chat"]

[[models.deployments]]
base_url = "{refused_url}/v1"
model = "scripted"
price_usd_per_million_tokens = {{ input = 3, output = 6 }}

[[models]]
name = "fake/claude"
context_window = 8192
max_output_tokens = 256
image_tokens = 100

[[models.deployments]]
provider = "anthropic"
base_url = "{url}/v1"
api_key_env = "FAKE_PROVIDER_KEY"
model = "claude-scripted"

[models.deployments.price_usd_per_million_tokens]
input = 1
output = 2
cached_input = 0.1
cache_write_5m = 1.25
cache_write_1h = 2

[[models]]
name = "fake/with-dear-fallback"
context_window = 8192
max_output_tokens = 256
fallbacks = ["fake/dear", "fake/o-series"]

[[models.deployments]]
base_url = "{refused_url}/v1"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}

[[models]]
name = "fake/dear"
context_window = 8192
max_output_tokens = 256

[[models.deployments]]
base_url = "{url}/v1"
model = "dear"
price_usd_per_million_tokens = {{ input = 100, output = 200 }}

[[models]]
name = "fake/chat-or-dear"
context_window = 8192
max_output_tokens = 256
fallbacks = ["fake/dear"]

[[models.deployments]]
base_url = "{url}/v1"
model = "cheap"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}

[[models]]
name = "fake/with-only-a-dear-fallback"
context_window = 8192
max_output_tokens = 256
fallbacks = ["fake/dear"]

[[models.deployments]]
base_url = "{refused_url}/v1"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}

[[models]]
name = "fake/busy"
context_window = 8192
max_output_tokens = 256
fallbacks = ["fake/dear"]

[[models.deployments]]
base_url = "{url}/v1"
model = "busy"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}

[[models]]
name = "fake/without-key"
context_window = 8192
max_output_tokens = 256

[[models.deployments]]
base_url = "{url}/v1"
api_key_env = "A_KEY_THAT_NOBODY_SET"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1, output = 2 }}
"""
)


@dataclass(frozen=True)
class GatewayServer:
    """A gateway that answers at `url` (an OpenAI SDK's base URL is `base_url`)."""

    url: str
    child: Child
    log_file: Path

    @property
    def base_url(self) -> str:
        return f"{self.url}/llm/v1"

    @asynccontextmanager
    async def sdk(self, caller: Caller, *, max_retries: int = 0) -> AsyncIterator[AsyncOpenAI]:
        """OpenAI's official client, with the caller's access token where its API key goes."""
        async with AsyncOpenAI(
            base_url=self.base_url, api_key=caller.access_token, max_retries=max_retries, timeout=ANSWERED_WITHIN_S
        ) as client:
            yield client

    @asynccontextmanager
    async def anthropic(self, caller: Caller, *, max_retries: int = 0) -> AsyncIterator[AsyncAnthropic]:
        """Anthropic's official client, with the caller's access token where its API key goes."""
        async with AsyncAnthropic(
            base_url=f"{self.url}/llm", api_key=caller.access_token, max_retries=max_retries, timeout=ANSWERED_WITHIN_S
        ) as client:
            yield client

    @asynccontextmanager
    async def http(self, caller: Caller) -> AsyncIterator[httpx.AsyncClient]:
        """A plain HTTP client below the base URL, as the caller."""
        async with httpx.AsyncClient(
            base_url=self.base_url, headers=caller.headers, timeout=ANSWERED_WITHIN_S
        ) as client:
            yield client

    async def answers(self, path: str, status: int) -> None:
        """GET `path` is answered with this status, soon; a relay that runs in the test's own loop is not blocked."""

        async def so_it_is() -> bool:
            self.child.require_running()
            try:
                async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
                    return (await client.get(f"{self.url}{path}")).status_code == status
            except httpx.TransportError:
                return False

        await eventually(so_it_is, timeout_s=READY_WITHIN_S)

    async def ready(self) -> None:
        """The gateway serves."""
        await self.answers("/health/ready", 200)

    def terminate(self) -> None:
        """The server has been told to stop (SIGTERM), and is not waited for."""
        self.child.process.send_signal(signal.SIGTERM)

    async def held(self) -> Held:
        """What its worker holds now."""
        [worker] = psutil.Process(self.child.process.pid).children()
        return await held_by(worker.pid, _held_file(self.log_file))

    async def told_of_calls(self, field: str, value: object) -> list[dict[str, object]]:
        """The log lines of the calls with this, once there is one: it is written beside the settlement."""
        found: list[dict[str, object]] = []

        async def is_told() -> bool:
            found[:] = [line for line in self.log_lines("llm_call") if line[field] == value]
            return bool(found)

        await eventually(is_told)
        return found

    def log_lines(self, event: str) -> list[dict[str, object]]:
        """The log lines of this event, oldest first."""
        lines = []
        for raw in self.log_file.read_text().splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # granian's own words
            if isinstance(line, dict) and line.get("event") == event:
                lines.append(line)
        return lines


@contextmanager
def gateway_on(
    stack: RunningStack,
    provider: FakeProvider,
    *,
    name: str = "gateway",
    models_toml: str = MODELS_TOML,
    database_deadline_s: float = PATIENCE_S,
    extra_environment: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Iterator[GatewayServer]:
    """Ready inside the block (unless `wait` is false), gone after it. Another `name` for each that runs meanwhile."""
    port = free_ports(1)[0]
    models_file = stack.state_dir / f"{name}.models.toml"
    models_file.write_text(models_toml.format(url=provider.url, refused_url=provider.refused_url))
    log_file = stack.state_dir / "logs" / f"{name}.log"
    part = Part(
        name=name,
        command=[sys.executable, "-m", "llm_gateway"],
        environ={
            **os.environ,
            **stack.environment(database_deadline_s=database_deadline_s),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(AT_START), *filter(None, [os.environ.get("PYTHONPATH")])]),
            HELD_FILE_VARIABLE: str(_held_file(log_file)),
            "BUTTRESS_MODELS_FILE": str(models_file),
            "BUTTRESS_GATEWAY_PORT": str(port),
            "BUTTRESS_CORS_ORIGINS": PAGE,
            "FAKE_PROVIDER_KEY": PROVIDER_KEY,
            **(extra_environment or {}),
        },
        log_file=log_file,
        grace_s=40.0,
    )
    child = stack.start(part)
    try:
        if wait:
            wait_until_answers(child, port, "/health/ready", timeout_s=READY_WITHIN_S)
        yield GatewayServer(url=f"http://127.0.0.1:{port}", child=child, log_file=log_file)
    finally:
        stack.family.stop(name)


def _held_file(log_file: Path) -> Path:
    return log_file.with_suffix(".held.json")
