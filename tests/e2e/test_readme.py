"""The README's examples, run as they stand; only the ports are those of the backend under test."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, Backend

BLOCK = re.compile(r"^```(sh|python|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def readme_blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((REPOSITORY / "README.md").read_text())


def block(language: str, containing: str) -> str:
    """The one example in this language that contains these words."""
    (found,) = [text for lang, text in readme_blocks() if lang == language and containing in text]
    return found


def run_example(command: list[str], folder: Path) -> str:
    """What the example prints when its reader runs it in this folder, in the shell that ran those before it."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **shell_variables(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shell_variables(folder: Path) -> dict[str, str]:
    """What the first example left in its reader's shell."""
    session = folder / "session.json"
    return {"TOKEN": json.loads(session.read_text())["data"]["session"]["access_token"]} if session.exists() else {}


def printed_documents(printed: str) -> list[Any]:  # Any: JSON
    """The JSON documents that the example printed, one behind the other."""
    documents = []
    while printed:
        document, end = json.JSONDecoder().raw_decode(printed)
        documents.append(document)
        printed = printed[end:].lstrip()
    return documents


def on_ports_of(backend: Backend, example: str) -> str:
    return example.replace("http://127.0.0.1:8000", backend.api_url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader sits: the second example reads a file that the first one wrote."""
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def shell(backend: Backend, folder: Path) -> Callable[[str], str]:
    """What the shell example with these words prints."""
    return lambda words: run_example(["sh", "-eu", "-c", on_ports_of(backend, block("sh", words))], folder)


@pytest.fixture(scope="module")
def python(backend: Backend, folder: Path) -> Callable[[str], str]:
    """What the Python example with these words prints."""
    return lambda words: run_example([sys.executable, "-c", on_ports_of(backend, block("python", words))], folder)


@pytest.fixture(scope="module")
def first_answer(shell: Callable[[str], str]) -> str:
    return shell("chat/completions")


@pytest.fixture(scope="module")
def application(python: Callable[[str], str], first_answer: str) -> str:
    return python("Difference Engine")


@pytest.fixture(scope="module")
def key(shell: Callable[[str], str], application: str) -> str:
    return shell("/v1/keys")


def test_first_request_answers_as_the_readme_shows(first_answer: str) -> None:
    shown = json.loads(block("json", "chat.completion"))
    answered = json.loads(first_answer)
    assert answered["object"] == shown["object"]
    assert answered["model"] == shown["model"]
    assert answered["choices"][0]["finish_reason"] == shown["choices"][0]["finish_reason"]
    assert answered["choices"][0]["message"]["role"] == "assistant"
    assert answered["choices"][0]["message"]["content"].strip()
    assert {key: answered["usage"][key] for key in shown["usage"]} == shown["usage"]


def test_application_example_runs(application: str) -> None:
    # the stream that has just ended is settled a moment later; the next test but one sees both calls
    assert re.search(r"'model': 'local/smollm2', 'calls': [12]\b", application)


def test_key_example_makes_a_key_with_a_budget(key: str) -> None:
    models, limits = printed_documents(key)
    assert "local/smollm2" in {model["id"] for model in models["data"]}
    (subject,) = limits["data"]
    assert subject["scope"] == "key"
    by_name = {limit["name"]: limit["limit"] for limit in subject["limits"]}
    assert by_name.pop("nano_usd_per_day") == 500_000_000
    assert set(by_name.values()) == {None}


def test_anthropics_client_is_answered_and_usage_and_limits_say_so(
    python: Callable[[str], str], shell: Callable[[str], str], key: str
) -> None:
    assert python("anthropic").strip()
    deadline_s = time.monotonic() + 30
    while True:  # an answer that has arrived is settled a moment later
        limits, usage = printed_documents(shell("group_by"))
        calls: Counter[bool] = Counter()
        for row in usage["data"]:
            calls[row["key_id"] is not None] += row["calls"]
        if calls.total() >= 3 or time.monotonic() > deadline_s:
            break
    assert {subject["scope"] for subject in limits["data"]} == {"user", "key"}
    assert calls == {False: 2, True: 1}


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"\./buttress ([a-z-]+)", (REPOSITORY / "README.md").read_text())))
)
def test_every_command_the_readme_names_exists(backend: Backend, command: str) -> None:
    helped = backend.buttress(command, "--help")
    assert helped.returncode == 0, helped.stderr


def test_every_variable_the_readme_names_is_documented() -> None:
    named = set(re.findall(r"\bBUTTRESS_[A-Z_]+\b", (REPOSITORY / "README.md").read_text()))
    documented = set(re.findall(r"\bBUTTRESS_[A-Z_]+\b", (REPOSITORY / ".env.example").read_text()))
    assert named <= documented


def test_every_path_the_readme_links_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (REPOSITORY / "README.md").read_text())
    assert links
    assert [link for link in links if "://" not in link and not (REPOSITORY / link).exists()] == []
