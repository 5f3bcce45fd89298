"""What waits goes together, in the right order, through few lanes; who has waited too long is told."""

from __future__ import annotations

import asyncio
import time
from typing import cast
from uuid import UUID, uuid4

import asyncpg
import pytest

from llm_gateway.limits import batching
from llm_gateway.limits.batching import Batch, Batches, Posting


class TooLate(Exception):
    """What a posting fails with at its deadline."""


class Database:
    """Takes batches, and answers each when told to."""

    def __init__(self, *, deadline_s: float = 60.0) -> None:
        self.batches = Batches(self.send, deadline_s=deadline_s, too_late=TooLate)
        self.sent: list[list[object]] = []
        self.waiting: list[tuple[Batch, asyncio.Event]] = []
        self.third = asyncio.Event()

    async def send(self, batch: Batch) -> None:
        self.sent.append([posting.arguments[0] for posting in batch])
        answered = asyncio.Event()
        self.waiting.append((batch, answered))
        if len(self.sent) == 3:
            self.third.set()
        await answered.wait()

    def put(self, name: str, user_id: UUID | None = None, *, finished: bool = False) -> Posting:
        return self.batches.put((name,), user_id or uuid4(), finished=finished)

    async def answer(self) -> None:
        """The oldest batch has come back."""
        batch, answered = self.waiting.pop(0)
        batch.answer([cast("asyncpg.Record", (posting.arguments[0],)) for posting in batch])
        answered.set()
        await settle_down()


async def settle_down() -> None:
    """Every task has come as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_lone_call_goes_at_once_and_calls_of_the_same_moment_go_together() -> None:
    database = Database()
    lone = database.put("lone")
    await settle_down()
    assert database.sent == [["lone"]]
    await database.answer()
    assert (await lone.answer)[0] == "lone"
    for name in "abc":
        database.put(name)
    database.put("done", finished=True)
    await settle_down()
    assert database.sent[1:] == [["done", "a", "b", "c"]], "finished calls first"


async def test_what_comes_while_every_lane_is_busy_waits_and_then_goes_together() -> None:
    database = Database()
    for name in "abcdef":
        database.put(name)
        await settle_down()
    assert database.sent == [["a"], ["b"]]
    await database.answer()
    assert database.sent[2:] == [["c", "d", "e", "f"]]


async def test_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_OF_A_KIND", 2)
    database = Database()
    user_id = uuid4()
    for name in "ABC":
        database.put(name, user_id, finished=True)
    for name in "ab":
        database.put(name, user_id)
    database.put("other")
    await settle_down()
    assert database.sent == [["A", "B", "other"]], "new calls of a user wait for all that was finished before them"
    await database.answer()
    assert database.sent[1:] == [["C", "a", "b"]]


async def test_a_users_calls_are_in_one_batch_at_a_time_and_nobody_else_waits_for_them() -> None:
    database = Database()
    user_id = uuid4()
    database.put("first", user_id)
    await settle_down()
    database.put("second", user_id)
    database.put("finished", user_id, finished=True)
    database.put("other")
    await settle_down()
    assert database.sent == [["first"], ["other"]]
    await database.answer()
    assert database.sent[2:] == [["finished", "second"]]


async def test_finished_calls_have_a_lane_of_their_own_when_the_others_are_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "FINISHED_WAIT_S", 0.001)
    database = Database()
    user_id = uuid4()
    database.put("a", user_id)
    await settle_down()
    database.put("b")
    await settle_down()
    done = database.put("done", user_id, finished=True)
    new = database.put("new", user_id)
    await asyncio.wait_for(database.third.wait(), 30)
    assert database.sent == [["a"], ["b"], ["done"]]
    for _ in range(3):
        await database.answer()
    assert database.sent[3:] == [["new"]]
    await database.answer()
    assert [(await posting.answer)[0] for posting in (done, new)] == ["done", "new"]


async def test_who_has_waited_too_long_is_told_and_a_lane_that_is_stuck_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "MOST_OF_A_KIND", 1)
    database = Database(deadline_s=0.5)
    stuck, never_sent = [database.put("a"), database.put("b")], database.put("c")
    time.sleep(0.005)  # noqa: ASYNC251 (the lanes begin later than the third waits, by the loop's clock of milliseconds)
    for posting in (*stuck, never_sent):
        with pytest.raises(TooLate):
            await posting.answer
    assert (stuck[0].sent, never_sent.sent) == (True, False)
    late = database.put("d")
    await asyncio.wait_for(database.third.wait(), 30)
    assert database.sent[2:] == [["d"]]
    await database.answer()  # the first batch comes back after all: nobody waits for it, and its lane is not free twice
    late.answer.cancel()


async def test_a_call_that_was_given_up_before_it_was_sent_never_goes() -> None:
    database = Database()
    given_up = database.put("a")
    given_up.answer.cancel()
    database.put("b")
    await settle_down()
    assert database.sent == [["b"]]
    assert not given_up.sent
