"""The API with the gateway mounted in it, as granian serves it to people, on the tests' own stack."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stack import api
from stack.http_probe import wait_until_answers
from tests.support.pools import PATIENCE_S, READY_WITHIN_S, SUPABASE_DEADLINE_VARIABLE
from tests.support.stack import RunningStack, free_ports

MODEL = "fake/chat"

_MODELS_TOML = """
[[models]]
name = "{model}"
context_window = 8192
max_output_tokens = 1024

[[models.deployments]]
base_url = "{provider_url}/v1"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1.00, output = 2.00 }}
"""


@dataclass(frozen=True)
class ApiServer:
    """A server that answers. `url`: the API's; the gateway is at `gateway_url`, with the one model `MODEL`."""

    url: str
    log_file: Path

    @property
    def gateway_url(self) -> str:
        return f"{self.url}/llm/v1"


@contextmanager
def api_server_on(
    stack: RunningStack, provider_url: str, *, name: str = "api", supabase_deadline_s: float = PATIENCE_S
) -> Iterator[ApiServer]:
    """Ready inside the block, gone after it. `provider_url`: the fake provider's. Another `name` for a second one.

    SUPABASE_AS_IN_SERVICE_S where a Supabase that does not answer is what it is about.
    """
    config = replace(stack.config, api_port=free_ports(1)[0])
    models_file = stack.state_dir / f"{name}.models.toml"
    models_file.write_text(_MODELS_TOML.format(model=MODEL, provider_url=provider_url))
    environment = {
        **stack.environment(),
        "BUTTRESS_MODELS_FILE": str(models_file),
        SUPABASE_DEADLINE_VARIABLE: str(supabase_deadline_s),
    }
    part = replace(api.part(config, environment), name=name, log_file=stack.state_dir / "logs" / f"{name}.log")
    child = stack.family.start(part)
    try:
        wait_until_answers(child, config.api_port, "/health/ready", timeout_s=READY_WITHIN_S)
        yield ApiServer(url=config.api_url, log_file=part.log_file)
    finally:
        stack.family.stop(name)
