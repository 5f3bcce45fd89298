"""Whether the services' source changed since it was last looked at; asks the file system, so it needs no library."""

from collections.abc import Sequence
from pathlib import Path

from stack.config import ROOT

SERVICE_FOLDERS = tuple(ROOT / name for name in ("api", "llm_gateway", "core"))
_SUFFIXES = (".py", ".toml")


class SourceWatch:
    def __init__(self, folders: Sequence[Path] = SERVICE_FOLDERS) -> None:
        self._folders = folders
        self._seen = self._look()

    def changed_file(self) -> Path | None:
        """One of the files that were written, made or removed since the last call; None where there is none."""
        before, self._seen = self._seen, self._look()
        changed = sorted(path for path, _ in before.items() ^ self._seen.items())
        return changed[0] if changed else None

    def _look(self) -> dict[Path, int]:
        found = {}
        for folder in self._folders:
            for path in folder.rglob("*"):
                if path.suffix in _SUFFIXES:
                    try:
                        found[path] = path.stat().st_mtime_ns
                    except FileNotFoundError:  # removed between the listing and the look
                        continue
        return found
