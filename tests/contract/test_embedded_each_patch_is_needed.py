"""For each patch of @supabase/lite there is a contract that breaks without it: a patch that nothing needs any more shows up here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stack import supabase
from tests.contract.conftest import SKIP

HERE = Path(__file__).parent
PATCHES = re.findall(r'^\s+"?([a-z-]+)"?: (?:with|new Mailbox|valueTypes|\(Base\)|authRole|atomic|complete|answer|limit|rest|verify|unwrap|storage|list)', supabase.SERVER.read_text(), re.MULTILINE)  # fmt: skip


def test_every_patch_has_its_contract() -> None:
    assert len(PATCHES) >= 15
    for patch in PATCHES:
        assert contract_of(patch).exists(), patch


def contract_of(patch: str) -> Path:
    return HERE / f"test_embedded_{patch.replace('-', '_')}.py"


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES)
def test_its_contract_breaks_without_it(patch: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(contract_of(patch))],
        env={**os.environ, SKIP: patch},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, f"all passes without {patch}:\n{done.stdout[-2000:]}"
    assert "AssertionError" in done.stdout or "Error" in done.stdout
