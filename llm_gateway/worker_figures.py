"""How several workers of one server show one set of figures: prometheus-client's files in a folder they share.

The library decides at its import, by the environment, whether to keep its figures in such files. A server that forks
its workers has imported it before the folder is known, so they decide anew (`use_shared_folder`).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Metric, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"

_LIVE_GAUGE_FILE: Final = re.compile(r"gauge_live[a-z]*_(\d+)\.db")


def use_shared_folder() -> str | None:
    """The folder that the environment names, if any: figures made from here on are kept there."""
    folder = os.environ.get(SHARED_FOLDER)
    if folder is not None:
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
    return folder


@contextmanager
def shared_between_workers(workers: int) -> Iterator[None]:
    """Inside, the environment names an empty folder in which this process' workers add up their figures.

    Not for one worker alone, unless the operator has named a folder: that one is emptied, because what an earlier run
    left there would be added to this one's, and stays.
    """
    named = os.environ.get(SHARED_FOLDER)
    if named is None and workers < 2:
        yield
        return
    folder = Path(named or tempfile.mkdtemp(prefix="buttress-metrics-"))
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.db"):
        left.unlink(missing_ok=True)
    os.environ[SHARED_FOLDER] = str(folder)
    try:
        yield
    finally:
        if named is None:
            del os.environ[SHARED_FOLDER]
            shutil.rmtree(folder, ignore_errors=True)


def render_everybody(folder: str) -> bytes:
    """The figures of every worker, in Prometheus' text format."""
    _forget_live_figures_of_the_dead(Path(folder))
    everybody = CollectorRegistry()
    everybody.register(_Everybody(folder))
    return generate_latest(everybody)


class _Everybody(Collector):
    """The library's own collector fails on a file that a worker has made and not yet given its first bytes."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def collect(self) -> Iterable[Metric]:
        begun = [str(file) for file in self._folder.glob("*.db") if _has_begun(file)]
        figures: Iterable[Metric] = MultiProcessCollector.merge(begun)  # type: ignore[no-untyped-call]
        return figures


def _has_begun(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # forgotten meanwhile
        return False


def _forget_live_figures_of_the_dead(folder: Path) -> None:
    """A worker that was killed works on nothing any more; what it counted stays."""
    for name in os.listdir(folder):
        found = _LIVE_GAUGE_FILE.fullmatch(name)
        if found is not None and not _lives(int(found[1])):
            (folder / name).unlink(missing_ok=True)  # another worker may be asked for the figures, too


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
