"""What the gateway does beside its calls: keeps the leases of long ones, reaps what others left, stops in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import FrameType
from typing import Final

from core.errors import ButtressError
from core.logging import get_logger
from llm_gateway.call import Call, Interruption
from llm_gateway.pipeline import Pipeline
from llm_gateway.times import SETTLE_AT_EXIT_S

log = get_logger(__name__)

KEEP_BOOKS_EVERY_S: Final = 3600.0
_LISTEN_EVERY_S: Final = 0.3
# Whoever sends one request after the other has sent the next by then.
_TELL_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.1


async def every(
    interval_s: float, work: Callable[[], Awaitable[object]], name: str, *, first_after_s: float | None = None
) -> None:
    """The work has been done again and again, until cancelled; a failure is logged and does not end it."""
    pause_s = interval_s if first_after_s is None else first_after_s
    while True:
        await asyncio.sleep(pause_s)
        pause_s = interval_s
        try:
            await work()
        except ButtressError as error:
            log.warning("upkeep_failed", work=name, code=error.code)
        except Exception:  # upkeep must go on: without it holds pile up
            log.exception("upkeep_fault", work=name)


async def renew_leases(pipeline: Pipeline) -> None:
    """Every call that takes long has a fresh lease; one whose hold is gone has been stopped."""
    for call in list(pipeline.calls):
        if call.age_s() < pipeline.times.renew_every or call.charge.resolution is not None:
            continue
        if not await pipeline.ledger.renew(call.charge.request_id, pipeline.times.lease):
            _stop(call, Interruption.LEASE_LOST)


class Shutdown:
    """Stops a pipeline in order: no new calls, time for the running ones, then an error for whoever is left.

    It waits for calls to be settled, but not for a ledger that has said nothing for `silent_s`.
    """

    def __init__(self, pipeline: Pipeline, *, silent_s: float) -> None:
        self._pipeline = pipeline
        self._silent_s = silent_s
        self._ending: asyncio.TimerHandle | None = None
        self._listening: asyncio.Task[None] | None = None
        self._heard = False  # the ledger has answered since it was last looked
        self._grace_left_s = pipeline.times.grace

    def announce(self) -> None:
        """Everything is served, and everybody is told to call elsewhere. More than once does no harm."""
        if not self._pipeline.leaving:
            self._pipeline.leaving = True
            log.info("gateway_leaving", calls=len(self._pipeline.calls))

    async def lame_duck(self) -> None:
        """Announced, and waited for everybody who could not be told: docs/decisions/0156.

        An answer that began before could not say that its connection ends with it. So when the lame duck's time is over
        the last of these answers is waited for, within the grace period, and then a moment in which their clients are
        told with the answer to whatever they ask next.
        """
        self.announce()
        times, clock = self._pipeline.times, asyncio.get_running_loop().time
        unwarned = frozenset(self._pipeline.calls)
        end_s = clock() + times.lame_duck + times.grace
        tell_s = min(_TELL_S, times.grace)
        await asyncio.sleep(times.lame_duck)
        if unwarned & self._pipeline.calls:
            while unwarned & self._pipeline.calls and clock() < end_s - tell_s:  # noqa: ASYNC110  (calls end anywhere)
                await asyncio.sleep(_LOOK_EVERY_S)
            await asyncio.sleep(tell_s)
            self._grace_left_s = max(0.0, end_s - clock())

    def begin(self) -> None:
        """New calls are refused; running ones have the grace period. More than once does no harm."""
        self.announce()
        if self._ending is None:
            self._pipeline.draining = True
            log.info("gateway_draining", calls=len(self._pipeline.calls))
            self._ending = asyncio.get_running_loop().call_later(self._grace_left_s, self._interrupt_all)

    async def finish(self) -> None:
        """No call runs, and every one is settled, as far as the database let us within the time."""
        self.begin()
        self._interrupt_all()
        tasks, clock = self._pipeline.tasks, asyncio.get_running_loop().time
        tasks.hurry()
        deadline_s = clock() + SETTLE_AT_EXIT_S
        quiet_s = 0.0  # added up, not read from a clock: a process that stood still itself has not been kept waiting
        while (before := len(tasks)) and clock() < deadline_s and quiet_s < self._silent_s:
            left = await tasks.drain(_LISTEN_EVERY_S)
            quiet_s = 0.0 if self._heard or left < before else quiet_s + _LISTEN_EVERY_S
            self._heard = False
        if self._listening is not None:
            self._listening.cancel()
        if left := tasks.abandon():
            log.error("calls_left_to_reaper", count=left)

    def _interrupt_all(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        for call in list(self._pipeline.calls):
            _stop(call, Interruption.SHUTDOWN)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="listen to the ledger")

    async def _listen(self) -> None:
        """Until cancelled it is noticed whenever the ledger answers."""
        while True:
            with suppress(ButtressError):
                await self._pipeline.ledger.reap()
                self._heard = True
            await asyncio.sleep(_LISTEN_EVERY_S)


def _stop(call: Call, why: Interruption) -> None:
    log.warning("call_interrupted", call_id=call.charge.request_id, why=why.value)
    call.interrupt(why)


def when_told_to_stop(begin: Callable[[], None]) -> Callable[[], None]:
    """SIGTERM and SIGINT also run `begin` in the current loop, before what the server does with them.

    Servers wait for open answers before they run an application's shutdown, so without this a stream would never learn
    of it. Returns what takes it back. Does nothing outside the main thread, where Python delivers no signals.
    """
    loop = asyncio.get_running_loop()
    previous: dict[signal.Signals, object] = {}

    def told(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    try:
        for one in (signal.SIGTERM, signal.SIGINT):
            previous[one] = signal.getsignal(one)
            signal.signal(one, told)
    except ValueError:
        return lambda: None

    def take_back() -> None:
        for one, handler in previous.items():
            signal.signal(one, handler)  # type: ignore[arg-type]  # what getsignal gave, signal takes

    return take_back


def when_told_to_leave(lame_duck: Callable[[], Coroutine[None, None, None]]) -> None:
    """From here on SIGTERM runs `lame_duck`, and is passed on as SIGINT at its end, which stops the server.

    As SIGINT, because the server's own handler of SIGTERM cannot be asked for: a loop keeps its handlers to itself. A
    second SIGTERM changes nothing (process managers send it to each process, and the server's parent sends it on);
    SIGINT itself never waits. Call it after `when_told_to_stop`. Does nothing outside the main thread.
    """
    loop = asyncio.get_running_loop()
    leaving: asyncio.Task[None] | None = None

    def leave() -> None:
        nonlocal leaving
        if leaving is None:
            leaving = loop.create_task(lame_duck(), name="lame duck")
            leaving.add_done_callback(lambda _: signal.raise_signal(signal.SIGINT))

    with suppress(ValueError, RuntimeError):  # no main thread: Python delivers no signals here
        loop.add_signal_handler(signal.SIGTERM, leave)
