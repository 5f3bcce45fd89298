"""Readiness, however often it is asked for."""

import asyncio

from api.health.service import Readiness


async def test_many_who_ask_at_once_share_one_check_and_the_next_one_asks_anew() -> None:
    asked = 0
    may_answer = asyncio.Event()

    async def check() -> bool:
        nonlocal asked
        asked += 1
        await may_answer.wait()
        return True

    readiness = Readiness({"part": check}, budget_s=60)
    many = [asyncio.create_task(readiness.results()) for _ in range(50)]
    impatient = asyncio.create_task(readiness.results())
    await asyncio.sleep(0)
    impatient.cancel()
    may_answer.set()
    assert await asyncio.gather(*many) == [{"part": True}] * 50
    assert asked == 1
    await readiness.results()
    assert asked == 2


async def test_a_part_that_does_not_answer_in_time_is_down_and_the_others_are_not() -> None:
    async def never() -> bool:
        await asyncio.Event().wait()
        return True

    async def at_once() -> bool:
        return True

    readiness = Readiness({"silent": never, "part": at_once}, budget_s=0.01)
    async with asyncio.timeout(60):
        assert await readiness.results() == {"silent": False, "part": True}
