"""A test that hangs fails, and its traceback shows where; the tests after it run (docs/decisions/0158)."""

import asyncio
import functools
import inspect
import signal
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

LIMIT_S = 120.0


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """The test has ended in time, or failed. A loop is not interrupted by a signal: no later test could use it."""
    mark = pyfuncitem.get_closest_marker("time_limit")
    limit_s = float(mark.args[0]) if mark else LIMIT_S
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _limited(pyfuncitem.obj, limit_s)
        return (yield)
    with _alarm(limit_s):
        return (yield)


def _limited(test: Callable[..., Awaitable[None]], limit_s: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(**arguments: object) -> None:
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                await test(**arguments)
        except TimeoutError as error:
            if limit.expired():
                error.add_note(_note(limit_s))
            raise

    return run


@contextmanager
def _alarm(limit_s: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(_note(limit_s))

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _note(limit_s: float) -> str:
    return f"the test was not done after {limit_s:g} s"
