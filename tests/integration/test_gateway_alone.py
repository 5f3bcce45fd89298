"""`python -m llm_gateway`: what it says when it cannot start, and what it answers beside the calls."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.callers import Caller
from tests.support.gateway_server import PAGE, GatewayServer
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


def test_on_a_port_that_is_taken_it_says_so(stack: RunningStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run({**stack.environment(), "BUTTRESS_GATEWAY_PORT": str(port)})
    assert ended.returncode == 2
    assert f"127.0.0.1:{port} (BUTTRESS_GATEWAY_HOST, BUTTRESS_GATEWAY_PORT): " in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_it_says_how_it_is(gateway: GatewayServer) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        live = await client.get("/health/live")
        ready = await client.get("/health/ready")
        nothing = await client.get("/llm")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert nothing.status_code == 404
    assert nothing.json()["error"]["code"] == "not_found"


async def test_what_is_not_there_is_refused_in_the_words_of_whoever_asks(gateway: GatewayServer) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        root = await client.get("/")
        openai = await client.post("/v1/chat/completions", json={})
        claude = await client.post("/v1/messages", json={}, headers={"anthropic-version": "2023-06-01"})
        method = await client.post("/health/live")
    for answer in (root, openai):
        assert answer.status_code == 404
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert answer.json()["error"]["code"] == "not_found"
        assert "/llm/v1 for OpenAI's" in answer.json()["error"]["message"]
    assert claude.status_code == 404
    assert claude.json()["type"] == "error"
    assert claude.json()["error"]["type"] == "not_found_error"
    assert (method.status_code, method.json()["error"]["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"]
    assert {answer.headers["content-type"] for answer in (root, openai, claude, method)} == {"application/json"}
    assert all("x-request-id" in answer.headers for answer in (root, openai, claude, method))


async def test_a_page_on_the_list_may_call_it_and_read_all_that_it_is_told(
    gateway: GatewayServer, caller: Caller
) -> None:
    asked = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-api-key, anthropic-version, x-buttress-cache",
    }
    body = {"model": "fake/chat", "messages": [{"role": "user", "content": "Hi."}]}
    async with gateway.http(caller) as client:
        preflight = await client.options("/chat/completions", headers=asked)
        answer = await client.post("/chat/completions", json=body, headers={"origin": PAGE})
        stranger = await client.post("/chat/completions", json=body, headers={"origin": "https://evil.example"})
    allowed = preflight.headers["access-control-allow-headers"].split(", ")
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, PAGE)
    assert set(asked["access-control-request-headers"].split(", ")) <= set(allowed)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {name for name in answer.headers if name.startswith("x-buttress")} <= exposed
    assert stranger.status_code == 200
    assert "access-control-allow-origin" not in stranger.headers


def test_litellm_is_not_imported_without_a_model_that_needs_it() -> None:
    code = "import llm_gateway, llm_gateway.app, sys; print('litellm' in sys.modules, 'openai' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split() == ["False", "False"]
