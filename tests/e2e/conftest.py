"""The backend as a person starts it: `./buttress up --detach` in a state folder and on ports of its own."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.fake_provider import FakeProvider
from tests.support.pools import PATIENT
from tests.support.stack import free_ports, temporary_state_dir

REPOSITORY = Path(__file__).resolve().parents[2]

# The catalogue that comes with the repository, and a model that does as the tests say.
SCRIPTED_MODEL = """
[[models]]
name = "scripted"
context_window = 8192
max_output_tokens = 1024

[[models.deployments]]
base_url = "{url}/v1"
model = "scripted"
price_usd_per_million_tokens = {{ input = 1.00, output = 2.00 }}
"""


@dataclass(frozen=True)
class Backend:
    """A backend that is up, and how to reach it."""

    environment: dict[str, str]
    api_url: str
    gateway_url: str
    supabase_url: str
    publishable_key: str
    fake_provider: FakeProvider

    def buttress(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What `./buttress …` says to a person who types it against this backend."""
        return run_buttress(self.environment, *arguments)

    def pids(self) -> list[int]:
        """Every process of it that `./buttress status` names."""
        status = json.loads(self.buttress("status", "--json").stdout)
        return [process["pid"] for process in status["processes"] if process["pid"]]


def run_buttress(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "buttress"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def recorded_usage(client: httpx.Client, api_url: str) -> list[dict[str, Any]]:
    """What the caller has used, once something is recorded: an answer that has arrived is settled a moment later."""
    deadline_s = time.monotonic() + 30
    while True:
        answer = client.get(f"{api_url}/v1/usage")
        assert answer.status_code == 200, answer.text
        recorded: list[dict[str, Any]] = answer.json()["data"]
        if recorded or time.monotonic() > deadline_s:
            return recorded
        time.sleep(0.05)


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    """Up with the real local model and the fake provider beside it; afterwards down, with no process left."""
    api, supabase, database, llm = free_ports(4)
    with temporary_state_dir() as folder, FakeProvider.start() as fake_provider:
        models = folder / "models.toml"
        ours = (REPOSITORY / "llm_gateway" / "models.toml").read_text()
        models.write_text(ours + SCRIPTED_MODEL.format(url=fake_provider.url))
        environment = {
            **os.environ,
            "BUTTRESS_STATE": str(folder / "state"),
            "BUTTRESS_PORT": str(api),
            "BUTTRESS_SUPABASE_PORT": str(supabase),
            "BUTTRESS_DB_PORT": str(database),
            "BUTTRESS_LLM_PORT": str(llm),
            "BUTTRESS_MODELS_FILE": str(models),
            **PATIENT,
        }
        up = run_buttress(environment, "up", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        status = json.loads(run_buttress(environment, "status", "--json").stdout)
        running = Backend(
            environment=environment,
            api_url=status["api_url"],
            gateway_url=status["gateway_url"],
            supabase_url=status["supabase_url"],
            publishable_key=status["publishable_key"],
            fake_provider=fake_provider,
        )
        try:
            pids = running.pids()
            assert pids, status
            yield running
        finally:
            down = run_buttress(environment, "down")
        assert down.returncode == 0, down.stdout + down.stderr
        assert [pid for pid in pids if psutil.pid_exists(pid)] == []
