"""Who is behind a credential, as the database says it (gateway.find_callers), and no older than a second.

Questions that come at the same time are asked together, over at most two connections of their own: a flood of callers,
known or not, is a longer list in a question, never more questions. An answer is kept for 0.9 s from the moment its
question was sent, so that a revoked key or an edited plan counts everywhere within a second (docs/decisions/0102).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

import asyncpg

from core.errors import ButtressError, Unavailable
from core.logging import get_logger
from core.postgres import ServicePool, fetch_repeatable
from llm_gateway.caller import Caller, Policy

log = get_logger(__name__)

FRESH_S: Final = 0.9
MOST_ANSWERS: Final = 10_000
MOST_WAITING: Final = 10_000
QUESTIONS_AT_ONCE: Final = 2  # the size of the pool, too
CALLERS_A_QUESTION: Final = 200

_FIND: Final = "select * from gateway.find_callers($1, $2, $3)"
_NOTE_USE: Final = "select gateway.note_use_of_keys($1)"


@dataclass(frozen=True, slots=True)
class Question:
    """Who has this key, or: may this user call in this workspace? Either `key_digest` or `user_id` is given."""

    user_id: UUID | None = None
    key_digest: bytes | None = None
    workspace_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """The database's answer: the caller, or why there is none (gateway.find_callers lists the verdicts)."""

    verdict: str
    caller: Caller | None = None


class _Asked:
    """A question on its way or answered. The answer is None where the database could not be asked."""

    __slots__ = ("answer", "fresh_until_s", "question")

    def __init__(self, question: Question, answer: asyncio.Future[Entry | None]) -> None:
        self.question = question
        self.answer = answer
        self.fresh_until_s = math.inf  # until it is sent


class Directory(Protocol):
    """Knows who is behind a credential."""

    async def find(self, question: Question) -> Entry:
        """What is so, now or less than a second ago. Raises: Unavailable, by the deadline of the database."""
        ...


class PostgresDirectory(Directory):
    """Finds callers through `pool`, whose login is gateway_service; and notes when a key was last used."""

    def __init__(self, pool: ServicePool, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._asked: OrderedDict[Question, _Asked] = OrderedDict()  # oldest question first
        self._waiting: deque[_Asked] = deque()
        self._asking: set[asyncio.Task[None]] = set()
        self._busy = 0  # of those, how many will still look who is waiting
        self._used: set[UUID] = set()
        self._noting: asyncio.Task[None] | None = None
        self._out_of_reach = False

    async def find(self, question: Question) -> Entry:
        asked = self._asked.get(question)
        if asked is None or self._clock() >= asked.fresh_until_s:
            asked = self._ask(question)
        if not asked.answer.done():
            await asyncio.wait({asked.answer}, timeout=self._pool.deadline_s)
        entry = asked.answer.result() if asked.answer.done() else None
        if entry is None:
            raise Unavailable("Nobody can be identified right now. Retry shortly.", code="callers_unavailable")
        return entry

    def __len__(self) -> int:
        """How many answers are remembered, or on their way."""
        return len(self._asked)

    async def aclose(self) -> None:
        """Nothing is asked any more; what was to be noted has been, if the database answers by its deadline."""
        tasks = {*self._asking, *({self._noting} if self._noting else ())}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._pool.deadline_s)
            for task in late:
                task.cancel()

    def _ask(self, question: Question) -> _Asked:
        if len(self._waiting) >= MOST_WAITING:
            raise Unavailable("Too many callers at once. Retry shortly.", code="callers_unavailable")
        loop = asyncio.get_running_loop()
        asked = _Asked(question, loop.create_future())
        self._asked[question] = asked
        self._asked.move_to_end(question)
        if len(self._asked) > MOST_ANSWERS:
            self._asked.popitem(last=False)
        self._waiting.append(asked)
        if self._busy < QUESTIONS_AT_ONCE:
            self._busy += 1
            task = loop.create_task(self._ask_those_waiting(), name="find callers")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return asked

    async def _ask_those_waiting(self) -> None:
        try:
            while self._waiting:
                await self._ask_together()
        finally:
            self._busy -= 1  # here and not when the task is done: nobody may come to wait in between

    async def _ask_together(self) -> None:
        together = [self._waiting.popleft() for _ in range(min(len(self._waiting), CALLERS_A_QUESTION))]
        fresh_until_s = self._clock() + FRESH_S
        for asked in together:
            asked.fresh_until_s = fresh_until_s
        entries: Sequence[Entry | None] = [None] * len(together)
        try:
            entries = await self._fetch([asked.question for asked in together])
        finally:
            for asked, entry in zip(together, entries, strict=True):
                asked.answer.set_result(entry)
                if entry is None and self._asked.get(asked.question) is asked:
                    del self._asked[asked.question]

    async def _fetch(self, questions: Sequence[Question]) -> Sequence[Entry | None]:
        """An entry for each question, in order; None for each where the database cannot be asked."""
        arguments = (
            [question.user_id for question in questions],
            [question.key_digest for question in questions],
            [question.workspace_id for question in questions],
        )
        try:
            rows = await fetch_repeatable(self._pool, _FIND, *arguments)
        except ButtressError as error:
            if not self._out_of_reach:
                log.warning("callers_unavailable", reason=repr(error.__cause__))
            self._out_of_reach = True
            return [None] * len(questions)
        self._out_of_reach = False
        entries: list[Entry | None] = [None] * len(questions)
        for row in rows:
            entries[row["place"] - 1] = _entry(row)
            if row["verdict"] == "found" and row["key_id"] is not None and not row["use_is_noted"]:
                self._note_use(row["key_id"])
        return entries

    def _note_use(self, key_id: UUID) -> None:
        self._used.add(key_id)
        if self._noting is None or self._noting.done():
            self._noting = asyncio.get_running_loop().create_task(self._note_uses(), name="note use of keys")

    async def _note_uses(self) -> None:
        while self._used:
            key_ids = list(self._used)
            self._used.clear()
            try:
                await fetch_repeatable(self._pool, _NOTE_USE, key_ids)
            except ButtressError as error:
                log.info("use_of_keys_not_noted", count=len(key_ids), reason=repr(error.__cause__))


def _entry(row: asyncpg.Record) -> Entry:
    """Made whole here, once: it answers every call of the next second."""
    if row["verdict"] != "found":
        return Entry(row["verdict"])
    policy = Policy(
        models=_names(row["models"]),
        endpoints=_names(row["endpoints"]),
        max_output_tokens=row["max_output_tokens"],
        max_choices=row["max_choices"],
        redact=row["redact"],
        redact_answers=row["redact_answers"],
        store_content=row["store_content"],
    )
    return Entry("found", Caller(row["user_id"], row["key_id"], row["workspace_id"], policy))


def _names(names: Sequence[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
