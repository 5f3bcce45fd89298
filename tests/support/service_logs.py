"""A test that fails shows what its services logged meanwhile: their logs go with the run."""

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.stack import RunningStack

_MOST_SHOWN = 10_000  # characters of one log: its end
_SIZES = pytest.StashKey[dict[Path, int]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """It is noted how long each log was when the test began."""
    if (folder := _folder(item)) is not None:
        item.stash[_SIZES] = sizes(folder)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report of a failure has a section for each log that grew."""
    report = yield
    if report.failed and (folder := _folder(item)) is not None:
        before: dict[Path, int] = item.stash.get(_SIZES, {})
        report.sections.extend(written_since(before, folder))
    return report


def sizes(folder: Path) -> dict[Path, int]:
    """Bytes of each log."""
    return {path: path.stat().st_size for path in folder.glob("*.log")}


def written_since(before: Mapping[Path, int], folder: Path) -> Iterator[tuple[str, str]]:
    """Each log that has grown, with the end of what is new."""
    for path in sorted(folder.glob("*.log")):
        new = path.read_bytes()[before.get(path, 0) :].decode(errors="replace")
        if new:
            yield f"{path.name} meanwhile", new[-_MOST_SHOWN:]


def _folder(item: pytest.Item) -> Path | None:
    """Where the services of the test's stack log; None for a test without a stack."""
    stack = getattr(item, "funcargs", {}).get("stack")
    return stack.state_dir / "logs" if isinstance(stack, RunningStack) else None
