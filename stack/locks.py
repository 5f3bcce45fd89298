"""Locks between processes: released by the kernel when their holder ends, however it ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

LOOK_S = 2.0  # for so long at most somebody who only looks keeps a lock, even on a busy machine
_POLL_S = 0.02


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Nobody else is inside; waits for whoever is."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path, *, patience_s: float = 0.0) -> int | None:
    """The open descriptor that holds the lock until it is closed; None where another process holds it for so long."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience_s
    while not _flock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            return None
        time.sleep(_POLL_S)
    return descriptor


def is_locked(path: Path) -> bool:
    """Another process holds the lock at this moment.

    To find out, a shared lock is held for a moment: nobody who looks is in the way of another who does, and whoever
    wants the lock itself needs a little patience.
    """
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        return not _flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int) -> bool:
    """False where somebody else's lock is in the way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
