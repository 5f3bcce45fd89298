"""Two at a time for one key, in order; other keys are not in the way; nothing stays."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from llm_gateway.limits.turns import Turns


class Inside:
    """Tasks that go in for a key and stay until told."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.names: list[str] = []
        self.leave = asyncio.Event()

    def enter(self, key: str, name: str) -> asyncio.Task[None]:
        async def stay() -> None:
            async with self.turns.of(key):
                self.names.append(name)
                await self.leave.wait()

        return asyncio.create_task(stay())


async def settle_down() -> None:
    """Every task has come as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_two_are_inside_for_one_key_and_the_others_follow_in_order() -> None:
    inside = Inside(Turns(2))
    tasks = [inside.enter("a", name) for name in "12345"]
    await settle_down()
    assert inside.names == ["1", "2"]
    inside.leave.set()
    await asyncio.gather(*tasks)
    assert inside.names == ["1", "2", "3", "4", "5"]
    assert len(inside.turns) == 0


async def test_one_key_is_not_in_the_way_of_another() -> None:
    inside = Inside(Turns(1))
    tasks = [inside.enter(key, key) for key in "aabb"]
    await settle_down()
    assert inside.names == ["a", "b"]
    inside.leave.set()
    await asyncio.gather(*tasks)


async def test_whoever_gives_up_takes_nobodys_turn() -> None:
    inside = Inside(Turns(1))
    first, second, third = (inside.enter("a", name) for name in "123")
    await settle_down()
    second.cancel()
    first.cancel()
    for task in (first, second):
        with suppress(asyncio.CancelledError):
            await task
    await settle_down()
    assert inside.names == ["1", "3"]
    inside.leave.set()
    await third
    assert len(inside.turns) == 0
