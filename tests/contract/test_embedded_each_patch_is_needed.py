"""For each patch of @supabase/lite there is a contract that breaks without it: one that nothing needs shows here."""

import contextlib
import io
import multiprocessing
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from stack import supabase
from tests.contract.conftest import SKIP
from tests.support.embedded_supabase import Cluster

PATCHES = (
    "access-tokens",
    "auth-role",
    "database-outage",
    "json-arguments",
    "mailbox",
    "one-time-passwords",
    "postgrest-errors",
    "request-context",
    "request-limits",
    "rest-requests",
    "schema-cache",
    "sign-up",
    "storage-links",
    "storage-listing",
    "storage-uploads",
    "value-types",
)


def contract_of(patch: str) -> Path:
    return Path(__file__).with_name(f"test_embedded_{patch.replace('-', '_')}.py")


def test_every_patch_of_the_server_has_its_contract() -> None:
    body = supabase.SERVER.read_text().split("import ", 1)[1]
    named = re.findall(r'(?:^ {4,}|\{ )"?([a-z]+(?:-[a-z]+)*)"?: (?=[A-Za-z(]+)', body, re.MULTILINE)
    assert set(PATCHES) <= set(named)
    assert [patch for patch in PATCHES if not contract_of(patch).exists()] == []


def run_without(patch: str, cluster: dict[str, str]) -> tuple[int, str]:
    """The contract's first failure on a server that goes without the patch: pytest's exit code, and what it printed."""
    os.environ.update({**cluster, SKIP: patch})
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", str(contract_of(patch))])
    return int(code), printed.getvalue()


@pytest.fixture(scope="module")
def beside() -> Iterator[ProcessPoolExecutor]:
    """A process in which one pytest after the other runs: most of each would be spent on importing it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        yield process


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES)
def test_its_contract_breaks_without_it(cluster: Cluster, beside: ProcessPoolExecutor, patch: str) -> None:
    code, printed = beside.submit(run_without, patch, cluster.hand_down()).result()
    assert code == pytest.ExitCode.TESTS_FAILED, f"the contract holds without {patch}:\n{printed[-2000:]}"
    assert re.search(r"^(FAILED|ERROR) tests/contract", printed, re.MULTILINE)
