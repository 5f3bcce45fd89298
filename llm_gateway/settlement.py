"""Work that must be finished whatever happens to the request it belongs to: settling, voiding, closing.

A cancelled request cannot finish an `await` of its own (Litestar #3772), and a server that stops cancels what is left.
So this work runs in tasks of its own, which a registry holds, and which shutdown waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

from core.errors import Unavailable
from core.logging import get_logger
from core.waiting import happens_within
from llm_gateway.limits.ledger import Hold, Ledger, Usage

log = get_logger(__name__)

# Together about half a minute: longer than a database needs to restart, shorter than a lease (the reaper's turn).
RETRY_DELAYS_S: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)
_HURRIED_RETRY_S: Final = 0.2


class DetachedTasks:
    """Tasks that no request owns. Bounded by what is bounded elsewhere: one or two a call."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurried = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        """The work has begun and will be finished, or its failure logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def drain(self, timeout_s: float) -> int:
        """The work is done, also what it started in turn; returns how many tasks the time did not suffice for."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._tasks:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                break
            await asyncio.wait(set(self._tasks), timeout=left_s)
        return len(self._tasks)

    def hurry(self) -> None:
        """Whoever waits before it tries again tries now, and then again and again until `abandon`."""
        self._hurried.set()

    async def pause(self, delay_s: float | None) -> bool:
        """`delay_s` is over (None: there is none left), or time presses; False where another try makes no sense."""
        if self._hurried.is_set():
            await asyncio.sleep(_HURRIED_RETRY_S)
        elif delay_s is not None:
            await happens_within(self._hurried, delay_s)
        else:
            return False
        return True

    def abandon(self) -> int:
        """What is not done will not be; returns how many tasks that are."""
        for task in self._tasks:
            task.cancel()
        return len(self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            log.warning("detached_task_cancelled", task=task.get_name())
        elif (error := task.exception()) is not None:
            log.error("detached_task_failed", task=task.get_name(), exc_info=error)


class Charge:
    """One held call until it is settled or voided: the first of the two counts, what comes after changes nothing."""

    __slots__ = ("_ledger", "_tasks", "request_id", "resolution")

    def __init__(self, ledger: Ledger, tasks: DetachedTasks, request_id: str) -> None:
        self._ledger = ledger
        self._tasks = tasks
        self.request_id = request_id
        self.resolution: asyncio.Task[None] | None = None

    async def reprice(self, tokens: int, cost_nano_usd: int) -> Hold:
        """The call holds this much. Raises: as Ledger.reprice."""
        return await self._ledger.reprice(self.request_id, tokens, cost_nano_usd)

    def settle(self, usage: Usage, better: Callable[[], Coroutine[None, None, Usage]] | None = None) -> None:
        """The usage is being written, or what knows `better` in a moment, unless the call was resolved before."""
        if self.resolution is None:
            self.resolution = self._tasks.start(self._settle(usage, better), name=f"settle {self.request_id}")

    def void(self) -> None:
        """The hold is being given back, unless the call was resolved before."""
        if self.resolution is None:
            self.resolution = self._tasks.start(
                self._until_told(lambda: self._ledger.void(self.request_id)), name=f"void {self.request_id}"
            )

    async def _settle(self, usage: Usage, better: Callable[[], Coroutine[None, None, Usage]] | None) -> None:
        if better is not None:
            usage = await better()
        await self._until_told(lambda: self._ledger.settle(self.request_id, usage))

    async def resolved(self, timeout_s: float) -> None:
        """The ledger knows, or `timeout_s` has passed and the ledger will know later."""
        if self.resolution is not None:
            await asyncio.wait({self.resolution}, timeout=timeout_s)

    async def _until_told(self, tell: Callable[[], Coroutine[None, None, None]]) -> None:
        """The ledger has been told, as soon as it could be. Raises: Unavailable, after which the lease decides."""
        delays_s = iter(RETRY_DELAYS_S)
        while True:
            try:
                return await tell()
            except Unavailable:
                if not await self._tasks.pause(next(delays_s, None)):
                    raise
