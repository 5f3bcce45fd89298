"""How each peer is started and asked. All have the same fake provider behind them, and answer in OpenAI's format."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stack.config import HOST
from stack.http_probe import wait_until_answers
from stack.node import node_environ, node_path
from stack.processes import Child, Part
from tests.load.peers.environments import portkey_script, python_of, redis_server
from tests.load.subjects import NotReady
from tests.support.fake_provider import FakeProvider
from tests.support.stack import RunningStack, free_ports

_START_TIMEOUT_S = 90.0
_KEY = "sk-bench-3f1c9a7e5b2d4860a1c3e5f7092b4d6e"
_TENSORZERO_LIMITS = """
[[rate_limiting.rules]]
model_inferences_per_minute = 100_000_000
tokens_per_minute = 1_000_000_000_000
scope = [{ tag_key = "user_id", tag_value = "tensorzero::each" }]
priority = 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A gateway that answers. `children` are its processes; `what_is_on` says what it does besides passing on.

    `body_fields(user)` go into each request's body beside OpenAI's own.
    """

    name: str
    what_is_on: str
    port: int
    path: str
    children: tuple[Child, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    model_prefix: str = ""
    body_fields: Callable[[int], dict[str, object]] = field(default=lambda _user: {})


@contextmanager
def litellm(stack: RunningStack, provider: FakeProvider, models: tuple[str, ...]) -> Iterator[Peer]:
    """LiteLLM's proxy with one worker and the one key without which it does not start; no database, no limits."""
    port = free_ports(1)[0]
    config = stack.state_dir / "litellm.yaml"
    served = f"api_base: {provider.url}/v1, api_key: none"
    entries = "".join(
        f"  - {{model_name: {model}, litellm_params: {{model: openai/{model}, {served}}}}}\n" for model in models
    )
    config.write_text(f"model_list:\n{entries}litellm_settings:\n  telemetry: false\n  num_retries: 0\n")
    program = python_of("litellm").parent / "litellm"
    part = Part(
        name="litellm",
        command=[str(program), "--config", str(config), "--host", HOST, "--port", str(port), "--num_workers", "1"],
        environ={
            **_clean_environ(),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": _KEY,
        },
        log_file=stack.state_dir / "logs" / "litellm.log",
        grace_s=5.0,
    )
    with _running(stack, part) as child:
        wait_until_answers(child, port, "/health/liveliness", timeout_s=_START_TIMEOUT_S)
        yield Peer(
            name="LiteLLM proxy",
            what_is_on="one key for everybody, no limits, no database",
            port=port,
            path="/v1/chat/completions",
            children=(child,),
            headers={"authorization": f"Bearer {_KEY}"},
        )


@contextmanager
def portkey(stack: RunningStack, provider: FakeProvider) -> Iterator[Peer]:
    """Portkey's open gateway on Node: the provider comes with each request's headers; it has no limits."""
    port = free_ports(1)[0]
    part = Part(
        name="portkey",
        command=[str(node_path()), str(portkey_script()), f"--port={port}", "--headless"],
        environ={**node_environ(), "NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": HOST},
        log_file=stack.state_dir / "logs" / "portkey.log",
        grace_s=5.0,
    )
    with _running(stack, part) as child:
        wait_until_answers(child, port, "/", timeout_s=_START_TIMEOUT_S)
        yield Peer(
            name="Portkey gateway",
            what_is_on="nothing: its limits are not in the open edition",
            port=port,
            path="/v1/chat/completions",
            children=(child,),
            headers={"x-portkey-provider": "openai", "x-portkey-custom-host": f"{provider.url}/v1"},
        )


@contextmanager
def tensorzero(stack: RunningStack, provider: FakeProvider, models: tuple[str, ...], *, limits: bool) -> Iterator[Peer]:
    """TensorZero's embedded gateway (Rust), without observability; with `limits`, two of each user kept in Valkey.

    Raises: NotReady where `limits` is asked for and neither redis-server nor valkey-server is installed.
    """
    config = stack.state_dir / f"tensorzero-{'limits' if limits else 'bare'}.toml"
    entries = "".join(
        f'[models.{model}]\nrouting = ["fake"]\n[models.{model}.providers.fake]\ntype = "openai"\n'
        f'model_name = "{model}"\napi_base = "{provider.url}/v1/"\napi_key_location = "none"\n'
        for model in models
    )
    config.write_text(f"[gateway]\nobservability.enabled = false\n{entries}{_TENSORZERO_LIMITS if limits else ''}")
    with _valkey(stack, wanted=limits) as valkey:
        command = [str(python_of("tensorzero")), str(Path(__file__).with_name("tensorzero_server.py")), str(config)]
        if valkey is not None:
            command.append(f"redis://{HOST}:{valkey[1]}")
        name = "tensorzero-limits" if limits else "tensorzero"
        log_file = stack.state_dir / "logs" / f"{name}.log"
        part = Part(name=name, command=command, environ=_clean_environ(), log_file=log_file, grace_s=5.0)
        with _running(stack, part) as child:
            yield Peer(
                name="TensorZero, limits" if limits else "TensorZero",
                what_is_on="two limits a user, kept in Valkey's memory"
                if limits
                else "nothing: no identity, no limits",
                port=_printed_port(child),
                path="/openai/v1/chat/completions",
                children=(child, valkey[0]) if valkey else (child,),
                model_prefix="tensorzero::model_name::",
                body_fields=lambda user: {"tensorzero::tags": {"user_id": f"user-{user}"}} if limits else {},
            )


@contextmanager
def _valkey(stack: RunningStack, *, wanted: bool) -> Iterator[tuple[Child, int] | None]:
    """Valkey in memory only, as a limiter needs it, and its port."""
    if not wanted:
        yield None
        return
    program = redis_server()
    if program is None:
        raise NotReady("TensorZero's limits need redis-server or valkey-server (Debian has both).")
    port = free_ports(1)[0]
    command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
    log_file = stack.state_dir / "logs" / "valkey.log"
    with _running(
        stack, Part(name="valkey", command=command, environ=_clean_environ(), log_file=log_file, grace_s=5.0)
    ) as child:
        yield child, port


@contextmanager
def _running(stack: RunningStack, part: Part) -> Iterator[Child]:
    child = stack.start(part)
    try:
        yield child
    finally:
        stack.family.stop(part.name)


def _printed_port(child: Child) -> int:
    """The port that the server says it listens on."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        child.require_running()
        found = re.search(r"^port (\d+)$", child.part.log_file.read_text(), re.MULTILINE)
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise NotReady(f"{child.part.name} did not say its port within {_START_TIMEOUT_S:.0f} s.")


def _clean_environ() -> dict[str, str]:
    """The caller's environment without what would reach another interpreter's packages."""
    return {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
