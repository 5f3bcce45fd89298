"""What hangs fails by itself, whether it waits in the loop or holds the process up, and the tests after it run."""

import asyncio
import time

import pytest


@pytest.mark.time_limit(0.05)
@pytest.mark.xfail(raises=TimeoutError, reason="takes longer than it may")
async def test_a_test_that_waits_in_the_loop_for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.time_limit(0.05)
@pytest.mark.xfail(raises=TimeoutError, reason="takes longer than it may")
def test_a_test_that_holds_the_process_up() -> None:
    time.sleep(60)


async def test_the_loop_serves_the_next_test() -> None:
    assert await asyncio.sleep(0, "served") == "served"
