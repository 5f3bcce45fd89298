"""Ctrl-C, `down` and a closed terminal all mean the same: end in order, and never between starting and recording."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(KeyboardInterrupt):
    """Somebody asked for the end. A KeyboardInterrupt, because event loops let that one through."""


class _State:
    deferrals = 0
    requests = 0


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    _State.requests += 1
    if not _State.deferrals:
        raise StopRequested


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP raise StopRequested."""
    before = {number: signal.signal(number, _on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, a request waits; it is raised at the end of the outermost block."""
    before = _State.requests
    _State.deferrals += 1
    try:
        yield
    finally:
        _State.deferrals -= 1
    if not _State.deferrals and _State.requests > before:
        raise StopRequested


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Inside, nothing is raised: the end is on its way. `is_urgent` tells whether somebody asked again."""
    _State.deferrals += 1
    _State.requests = 0
    try:
        yield
    finally:
        _State.deferrals -= 1


def is_urgent() -> bool:
    """Somebody asked again while the end was on its way: no more grace."""
    return _State.deferrals > 0 and _State.requests > 0
