"""Environments beside .venv, for what cannot be installed in it: made by the launcher, once for each lock file."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def side_python(lock_name: str) -> str:
    """The Python of an environment with what the lock file (in the repository's root) says, and nothing else."""
    base = os.path.realpath(sys.executable)  # it has pip and its configuration; that of .venv has neither
    command = [base, str(REPOSITORY / "buttress"), "side-environment", lock_name]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    return made.stdout.splitlines()[-1]
