"""The README's examples, run as they stand; only the ports are those of the backend under test."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import REPOSITORY, Backend

BLOCK = re.compile(r"^```(sh|python|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def readme_blocks() -> list[tuple[str, str]]:
    return BLOCK.findall((REPOSITORY / "README.md").read_text())


def block(language: str, containing: str) -> str:
    """The one example in this language that contains these words."""
    (found,) = [text for lang, text in readme_blocks() if lang == language and containing in text]
    return found


def run_example(backend: Backend, command: list[str], folder: Path) -> str:
    """What the example prints when its reader runs it in this folder."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_ports_of(backend: Backend, example: str) -> str:
    return example.replace("http://127.0.0.1:8000", backend.api_url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader sits: the second example reads a file that the first one wrote."""
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def first_answer(backend: Backend, folder: Path) -> str:
    example = on_ports_of(backend, block("sh", "chat/completions"))
    return run_example(backend, ["sh", "-eu", "-c", example], folder)


def test_first_request_answers_as_the_readme_shows(first_answer: str) -> None:
    shown = json.loads(block("json", "chat.completion"))
    answered = json.loads(first_answer)
    assert answered["object"] == shown["object"]
    assert answered["model"] == shown["model"]
    assert answered["choices"][0]["finish_reason"] == shown["choices"][0]["finish_reason"]
    assert answered["choices"][0]["message"]["role"] == "assistant"
    assert answered["choices"][0]["message"]["content"].strip()
    assert {key: answered["usage"][key] for key in shown["usage"]} == shown["usage"]


def test_application_example_runs(backend: Backend, folder: Path, first_answer: str) -> None:
    example = on_ports_of(backend, block("python", "Difference Engine"))
    printed = run_example(backend, [sys.executable, "-c", example], folder)
    assert "'model': 'local/smollm2', 'calls': 2" in printed


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
