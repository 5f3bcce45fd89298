"""Code that runs without being watched: what coverage costs is neither waited for nor measured."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def untraced() -> Iterator[None]:
    """This thread runs at full speed inside the block, and as before after it."""
    watching = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(watching)


def cpu_s(call: Callable[[], object], *, times: int = 3) -> float:
    """The least CPU that so many calls took this thread: a busy machine adds little to it."""
    return min(_once_s(call) for _ in range(times))


def _once_s(call: Callable[[], object]) -> float:
    with untraced():
        started_s = time.thread_time()
        call()
        return time.thread_time() - started_s
