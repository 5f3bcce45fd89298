"""For each patch of @supabase/lite there is a contract that breaks without it: one that nothing needs shows here."""

import os
import re
import subprocess
import sys
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


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES)
def test_its_contract_breaks_without_it(cluster: Cluster, patch: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(contract_of(patch))],
        env={**os.environ, **cluster.hand_down(), SKIP: patch},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, f"the contract holds without {patch}:\n{done.stdout[-2000:]}"
    assert re.search(r"^(FAILED|ERROR) tests/contract", done.stdout, re.MULTILINE)
