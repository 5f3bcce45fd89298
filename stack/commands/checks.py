"""`test`, `bench` and `fake-provider`: what developers and continuous integration run."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from stack.commands import Commands
from stack.config import ROOT
from stack.errors import StackError

_LEAST_COVERED_PERCENT = 85
# A file's tests stay together in one of several processes, each with a stack of its own: most of their time is
# waiting. In the tests' own order, long files do not come last (docs/decisions/0130).
# A process that a hanging fixture ended (docs/decisions/0158) is not replaced: its file would hang the next one, too.
_IN_PARALLEL = (
    *("-n", str(min((os.cpu_count() or 1) + 1, 8)), "--max-worker-restart", "0"),
    *("--dist", "loadfile", "--no-loadscope-reorder"),
)
_WHOLLY_COVERED = ("llm_gateway/limits/*", "llm_gateway/accounting.py", "core/tokens.py")

_LINTS = (
    ("ruff check", ["-m", "ruff", "check", ".", "buttress"]),
    ("ruff format", ["-m", "ruff", "format", "--check", ".", "buttress"]),
    ("mypy --strict", ["-m", "mypy"]),
    ("mypy --strict, the launcher", ["-m", "mypy", "buttress"]),
    ("import-linter", ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]),
)


def add_to(commands: Commands) -> None:
    test = commands.add_parser("test", help="lint, types and every test; what it does not know goes on to pytest")
    test.add_argument("--fast", action="store_true", help="leave out the slow tests and the coverage thresholds")
    test.set_defaults(run=run_test, passes_on=True)
    bench = commands.add_parser("bench", help="throughput and latency of gateway and API beside the bare provider")
    bench.set_defaults(run=run_bench, passes_on=True)
    fake = commands.add_parser("fake-provider", help="start the LLM provider that plays scripted behaviour")
    fake.set_defaults(run=run_fake_provider, passes_on=True)


def run_test(options: argparse.Namespace) -> int:
    """The lints, then pytest. With pytest arguments of the caller's own, the tests they select and nothing else."""
    if options.rest:
        _check("pytest", ["-m", "pytest", *(["-m", "not slow"] if options.fast else []), *options.rest])
        return 0
    for name, command in _LINTS:
        _check(name, command)
    if options.fast:
        _check("pytest, without the slow ones", ["-m", "pytest", "-q", *_IN_PARALLEL, "-m", "not slow"])
    else:
        _test_with_coverage()
    print("\nEverything passed.")
    return 0


def _test_with_coverage() -> None:
    _check("coverage erase", ["-m", "coverage", "erase"])
    _check("pytest", ["-m", "coverage", "run", "-m", "pytest", "-q", *_IN_PARALLEL])
    _check("coverage combine", ["-m", "coverage", "combine", "--quiet"])
    report = ["-m", "coverage", "report", f"--fail-under={_LEAST_COVERED_PERCENT}"]
    _check(f"{_LEAST_COVERED_PERCENT} % of the lines are tested", report)
    strict = ["-m", "coverage", "report", f"--include={','.join(_WHOLLY_COVERED)}", "--fail-under=100"]
    _check("every line of the ledger and of the tokens is tested", strict)


def _check(name: str, command: Sequence[str]) -> None:
    """Raises: StackError naming the check, where it failed; it has said itself what is wrong."""
    print(f"── {name}", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if code != 0:
        raise StackError(f"{name} failed (exit code {code}).")
    print(f"   {time.monotonic() - started:.1f} s", flush=True)


def run_bench(options: argparse.Namespace) -> int:
    return _module("tests.load", options.rest)


def run_fake_provider(options: argparse.Namespace) -> int:
    return _module("tests.support.fake_provider", options.rest)


def _module(name: str, arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", name, *arguments], cwd=ROOT, check=False).returncode
