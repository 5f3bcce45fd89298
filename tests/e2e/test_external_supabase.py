"""`./buttress up` against somebody else's Supabase, as the README says; the tests' own stack plays that one."""

import json
import os
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.conftest import recorded_usage, run_buttress
from tests.support.pools import PATIENT
from tests.support.stack import RunningStack, free_ports, temporary_state_dir


@pytest.fixture(scope="module")
def environment(stack: RunningStack) -> Iterator[dict[str, str]]:
    """What the README says to export, and a state folder and ports of its own."""
    api, llm, supabase, database = free_ports(4)
    with temporary_state_dir() as folder:
        yield {
            **os.environ,
            "BUTTRESS_SUPABASE_URL": stack.supabase_url,
            "BUTTRESS_SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
            "BUTTRESS_JWT_SECRET": stack.jwt_secret,
            "BUTTRESS_GATEWAY_DATABASE_URL": stack.gateway_database_url,
            "BUTTRESS_KEY_PEPPER": stack.secrets.key_pepper,
            **PATIENT,
            "BUTTRESS_STATE": str(folder / "state"),
            "BUTTRESS_PORT": str(api),
            "BUTTRESS_LLM_PORT": str(llm),
            "BUTTRESS_SUPABASE_PORT": str(supabase),
            "BUTTRESS_DB_PORT": str(database),
        }


@pytest.fixture(scope="module")
def status(environment: dict[str, str]) -> Iterator[dict[str, Any]]:  # JSON of the command line
    """`status --json` of the backend, which is up until the tests of this file are done."""
    up = run_buttress(environment, "up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    assert environment["BUTTRESS_SUPABASE_URL"] in up.stdout
    try:
        asked = run_buttress(environment, "status", "--json")
        assert asked.returncode == 0, asked.stdout + asked.stderr
        status = json.loads(asked.stdout)
        yield status
    finally:
        down = run_buttress(environment, "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert [process["pid"] for process in status["processes"] if psutil.pid_exists(process["pid"])] == []


def test_status_shows_that_supabase_and_starts_nothing_of_it(status: dict[str, Any], stack: RunningStack) -> None:
    assert status["supabase_url"] == stack.supabase_url
    assert status["publishable_key"] == stack.publishable_key
    assert status["database_url"] is None
    assert {process["name"]: process["health"] for process in status["processes"]} == {"api": "ok", "llm": "ok"}


def test_person_signs_up_there_and_gets_an_answer_that_is_recorded_there(status: dict[str, Any]) -> None:
    credentials = {"email": f"ada-{secrets.token_hex(6)}@example.com", "password": "correct-Horse-9-battery"}
    signed_up = httpx.post(f"{status['api_url']}/v1/auth/sign-up", json=credentials, timeout=60)
    assert signed_up.status_code == 201, signed_up.text
    token = signed_up.json()["data"]["session"]["access_token"]
    with httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
        question = {"model": "local/smollm2", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}
        answer = client.post(f"{status['gateway_url']}/chat/completions", json=question)
        assert answer.status_code == 200, answer.text
        (usage,) = recorded_usage(client, status["api_url"])
    assert (usage["model"], usage["calls"]) == ("local/smollm2", 1)


def test_migrate_asks_which_database_is_meant_and_finds_it_by_its_url(
    environment: dict[str, str], stack: RunningStack
) -> None:
    unnamed = run_buttress(environment, "migrate", "status")
    assert (unnamed.returncode, unnamed.stdout) == (1, "")
    assert "pass its database as --database-url" in unnamed.stderr
    named = run_buttress(environment, "migrate", "status", "--database-url", stack.database_url)
    assert named.returncode == 0, named.stdout + named.stderr


def test_missing_variables_are_named_before_anything_starts(environment: dict[str, str]) -> None:
    incomplete = {**environment, "BUTTRESS_STATE": environment["BUTTRESS_STATE"] + "-incomplete"}
    del incomplete["BUTTRESS_JWT_SECRET"], incomplete["BUTTRESS_GATEWAY_DATABASE_URL"]
    up = run_buttress(incomplete, "up", "--detach")
    said = up.stdout + up.stderr
    assert up.returncode == 1
    assert "BUTTRESS_JWKS_URL or BUTTRESS_JWT_SECRET" in said
    assert "BUTTRESS_GATEWAY_DATABASE_URL" in said
    assert "Traceback" not in said


def test_production_is_refused_on_embedded_secrets_each_by_name(environment: dict[str, str]) -> None:
    production = {
        **environment,
        "BUTTRESS_ENV": "production",
        "BUTTRESS_STATE": environment["BUTTRESS_STATE"] + "-production",
    }
    up = run_buttress(production, "up", "--detach")
    said = up.stdout + up.stderr
    assert up.returncode == 1
    for name in ("SUPABASE_PUBLISHABLE_KEY", "JWT_SECRET", "GATEWAY_DATABASE_URL", "KEY_PEPPER"):
        assert f"BUTTRESS_{name}: is a secret of the embedded development stack" in said
