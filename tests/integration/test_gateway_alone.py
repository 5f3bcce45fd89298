"""`python -m llm_gateway`: what it says when it cannot start, and what it answers beside the calls."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BUTTRESS_")}
    return subprocess.run(
        [sys.executable, "-m", "llm_gateway"],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_configuration_it_names_every_variable() -> None:
    ended = run({})
    assert ended.returncode == 2
    assert "BUTTRESS_SUPABASE_URL: is missing" in ended.stderr
    assert "BUTTRESS_GATEWAY_DATABASE_URL: is missing" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_with_a_wrong_catalogue_it_names_what_is_wrong(stack: RunningStack, tmp_path: Path) -> None:
    models_file = tmp_path / "models.toml"
    models_file.write_text('[[models]]\nname = "a"\n')
    ended = run({**stack.environment(), "BUTTRESS_MODELS_FILE": str(models_file)})
    assert ended.returncode == 2
    assert "models[0] (a).context_window: field required" in ended.stderr
    assert "models[0] (a).deployments: field required" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_it_says_how_it_is(gateway: GatewayServer) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        live = await client.get("/health/live")
        ready = await client.get("/health/ready")
        nothing = await client.get("/llm")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert nothing.status_code == 404
    assert nothing.json()["error"]["code"] == "not_found"


def test_litellm_is_not_imported_without_a_model_that_needs_it() -> None:
    code = "import llm_gateway, llm_gateway.app, sys; print('litellm' in sys.modules, 'openai' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split() == ["False", "False"]
