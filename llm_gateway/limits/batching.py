"""Many calls in one statement: what waits goes together, and what has nobody to wait for goes at once.

A lane carries one batch at a time. Ordinary lanes take finished calls first and then new ones; a user whose calls are
in a batch already waits for its end, so that nobody queues for a meter in the database who could queue here, and a new
call is decided after the calls of its user that were finished before it came. Finished calls that wait too long,
because every ordinary lane is stuck, have a lane of their own.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Container, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    import asyncpg

ORDINARY_LANES: Final = 2
MOST_OF_A_KIND: Final = 64  # in one batch: a statement of that many takes some ten milliseconds
FINISHED_WAIT_S: Final = 0.02


@dataclass(slots=True, eq=False)
class Posting:
    """One call to be finished or admitted: a row of arguments, and the answer to come."""

    arguments: tuple[object, ...]
    user_id: UUID | None
    answer: asyncio.Future[asyncpg.Record]
    deadline_s: float  # of the event loop's clock
    queued_s: float
    sent: bool = False  # the database may have seen it


@dataclass(slots=True, eq=False)
class Batch:
    """What one statement carries: first calls that are finished, then new ones."""

    finished: list[Posting] = field(default_factory=list)
    new: list[Posting] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.finished) + len(self.new)

    def __iter__(self) -> Iterator[Posting]:
        """In the order of their answers."""
        yield from self.finished
        yield from self.new

    def one_by_one(self) -> Iterator[Batch]:
        """Each posting that somebody still waits for in a batch of its own, in order."""
        for posting in self.finished:
            if not posting.answer.done():
                yield Batch(finished=[posting])
        for posting in self.new:
            if not posting.answer.done():
                yield Batch(new=[posting])

    def answer(self, rows: Sequence[asyncpg.Record]) -> None:
        """Each posting has its row, unless nobody waits for it any more."""
        for posting, row in zip(self, rows, strict=True):
            if not posting.answer.done():
                posting.answer.set_result(row)

    def fail(self, error: Exception) -> None:
        """Every posting that somebody still waits for has failed with this."""
        for posting in self:
            if not posting.answer.done():
                posting.answer.set_exception(error)

    @property
    def given_up(self) -> bool:
        """Nobody waits for an answer any more."""
        return all(posting.answer.done() for posting in self)


class Batches:
    """Postings on their way. `send` answers every posting of a batch and never raises.

    A posting that is not answered within `deadline_s` fails with what `too_late` makes. A batch that has not come back
    by then gives up its lane, whatever still happens to it.
    """

    def __init__(
        self,
        send: Callable[[Batch], Coroutine[None, None, None]],
        *,
        deadline_s: float,
        too_late: Callable[[], Exception],
    ) -> None:
        self._send = send
        self._deadline_s = deadline_s
        self._too_late = too_late
        self._finished: deque[Posting] = deque()
        self._new: deque[Posting] = deque()
        self._by_deadline: deque[Posting] = deque()
        self._busy: Counter[UUID] = Counter()
        self._lanes_free = ORDINARY_LANES
        self._own_lane_free = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._rescuing = False
        self._sweeping = False

    def put(self, arguments: tuple[object, ...], user_id: UUID | None, *, finished: bool) -> Posting:
        """The call is on its way."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        posting = Posting(arguments, user_id, loop.create_future(), now_s + self._deadline_s, now_s)
        (self._finished if finished else self._new).append(posting)
        self._watch(posting, loop)
        if not self._pumping:
            # at the end of this turn of the loop: what else arrives in it goes along
            self._pumping = True
            loop.call_soon(self._pump)
        return posting

    def _pump(self) -> None:
        """Every lane that is free has a batch, if there is something to carry."""
        self._pumping = False
        while self._lanes_free:
            batch = Batch(self._take(self._finished, self._busy))
            left_behind = {posting.user_id for posting in self._finished}
            batch.new = self._take(self._new, self._busy.keys() | left_behind)
            if not batch.finished and not batch.new:
                break
            self._lanes_free -= 1
            self._start(batch, own_lane=False)
        if self._finished and not self._rescuing:
            self._rescuing = True
            oldest_s = self._finished[0].queued_s
            asyncio.get_running_loop().call_at(oldest_s + FINISHED_WAIT_S, self._rescue)

    def _rescue(self) -> None:
        """Finished calls that have waited too long are on their way in a lane that takes nothing else."""
        self._rescuing = False
        loop = asyncio.get_running_loop()
        if self._own_lane_free and self._finished and self._finished[0].queued_s + FINISHED_WAIT_S <= loop.time():
            self._own_lane_free = False
            self._start(Batch(self._take(self._finished, ())), own_lane=True)
        elif self._own_lane_free:
            self._pump()

    @staticmethod
    def _take(queue: deque[Posting], waiting: Container[UUID | None]) -> list[Posting]:
        """The first of the queue that may go now; those of `waiting` users stay where they are."""
        taken: list[Posting] = []
        staying: list[Posting] = []
        while queue and len(taken) < MOST_OF_A_KIND:
            posting = queue.popleft()
            if posting.answer.done():
                continue
            if posting.user_id is not None and posting.user_id in waiting:
                staying.append(posting)
            else:
                taken.append(posting)
        queue.extendleft(reversed(staying))
        return taken

    def _start(self, batch: Batch, *, own_lane: bool) -> None:
        for posting in batch:
            posting.sent = True
        loop = asyncio.get_running_loop()
        users = {posting.user_id for posting in batch if posting.user_id is not None}
        self._busy.update(users)
        task = loop.create_task(self._send(batch))
        self._tasks.add(task)
        back = False

        def come_back(*_: object) -> None:
            nonlocal back
            if back:
                return
            back = True
            timer.cancel()
            for user_id in users:
                if self._busy[user_id] == 1:
                    del self._busy[user_id]
                else:
                    self._busy[user_id] -= 1
            if own_lane:
                self._own_lane_free = True
            else:
                self._lanes_free += 1
            self._forget_answered()
            self._pump()

        timer = loop.call_later(self._deadline_s, come_back)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(come_back)

    def _watch(self, posting: Posting, loop: asyncio.AbstractEventLoop) -> None:
        self._by_deadline.append(posting)
        if not self._sweeping:
            self._sweeping = True
            loop.call_at(self._by_deadline[0].deadline_s, self._sweep)

    def _forget_answered(self) -> None:
        while self._by_deadline and self._by_deadline[0].answer.done():
            self._by_deadline.popleft()

    def _sweep(self) -> None:
        """Whoever has waited for too long has been told: all may wait equally long, so the first to come go first."""
        self._sweeping = False
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._by_deadline and (self._by_deadline[0].answer.done() or self._by_deadline[0].deadline_s <= now_s):
            posting = self._by_deadline.popleft()
            if not posting.answer.done():
                posting.answer.set_exception(self._too_late())
        if self._by_deadline:
            self._sweeping = True
            loop.call_at(self._by_deadline[0].deadline_s, self._sweep)
