"""Where the peers are installed: an environment of its own for each, from hash-pinned locks beside this file."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from stack.config import TOOLS_DIR
from stack.errors import StackError
from stack.node import install_packages

_HERE = Path(__file__).parent
_PORTKEY = _HERE / "portkey"


def python_of(peer: str) -> Path:
    """The interpreter of an environment that has what `requirements-<peer>.lock` says; made on first use (a minute).

    Raises: StackError with pip's own last words.
    """
    lock = _HERE / f"requirements-{peer}.lock"
    folder = TOOLS_DIR / "peers" / peer
    python, mark = folder / "bin" / "python", folder / ".lock-hash"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if mark.is_file() and mark.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--no-input", "--require-hashes", "-r", str(lock)])
    mark.write_text(wanted)
    return python


def portkey_script() -> Path:
    """Portkey's own start script, with the packages it needs beside it; installed on first use."""
    install_packages(_PORTKEY)
    return _PORTKEY / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def redis_server() -> str | None:
    """The program that plays Valkey for TensorZero (Debian's `redis-server`); None where it is not installed."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"A peer could not be installed; {command[0]} said:\n{(done.stderr or done.stdout)[-1500:]}")
