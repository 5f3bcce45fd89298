"""What a call leaves in the gateway's memory: nothing, however it ended. Objects are counted, not bytes.

BerriAI/litellm#27954, #38193, #21908: processes that grew until they were killed. How many bytes a process of its own
grows by under load is for `python -m tests.faults.aborted_streams` to say.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from llm_gateway import Gateway
from llm_gateway.providers import litellm_module
from tests.support.callers import Caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import OUT_OF_REACH, none_held, set_limits
from tests.support.gateway_within import ask_within, gateway_within
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.stack import RunningStack

ASK = {"model": "fake/chat", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 20}
EACH_WAY = 10


def ours() -> Counter[str]:
    """How many objects of our own classes there are, and how many tasks and errors."""
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if kind.__module__.startswith(("llm_gateway.", "core.")) or issubclass(kind, asyncio.Task | BaseException)
    )


async def ask_in_every_way(gateway: Gateway, caller: Caller, provider: FakeProvider) -> None:
    """Whole, streamed, left, cut off, refused by the provider, by a limit and for what it says."""
    steps: list[tuple[Step, dict[str, object], bool]] = [
        (Step(), {}, False),
        (Step(), {"stream": True}, False),
        (Step(output_tokens=20, hold_after_chunks=3), {"stream": True}, True),
        (Step(output_tokens=20, cut_after_chunks=2), {"stream": True}, False),
        (Step(status=400), {}, False),
        (Step(), {"messages": [{"role": "user", "content": "x" * 200_000}]}, False),
        (Step(), {"model": "no/such"}, False),
    ]
    for step, changes, leaves in steps:
        provider.reset()
        provider.script(replace(step, times=EACH_WAY))
        body = {**ASK, **changes}
        await asyncio.gather(
            *(ask_within(gateway, caller.headers, "/chat/completions", body, leaves=leaves) for _ in range(EACH_WAY))
        )


async def test_calls_leave_no_object_behind_however_they_end(
    stack: RunningStack, fake_provider: FakeProvider, caller: Caller, database: asyncpg.Connection, tmp_path: Path
) -> None:
    await set_limits(database, caller, **{**OUT_OF_REACH, "tokens_per_day": 100_000})
    async with gateway_within(stack, fake_provider, tmp_path, models_toml=NATIVE_MODELS_TOML) as gateway:
        await ask_in_every_way(gateway, caller, fake_provider)  # what is made once is there now
        await none_held(database, caller)
        before = ours()
        await ask_in_every_way(gateway, caller, fake_provider)
        await none_held(database, caller)
        grown: Counter[str] = Counter()

        async def as_before() -> bool:
            nonlocal grown
            grown = ours() - before
            return max(grown.values(), default=0) < EACH_WAY  # a timer or a task may be about to end

        await eventually(as_before)
        assert sum(before.values()) < 500


async def test_calls_are_answered_while_litellm_is_being_imported(
    stack: RunningStack,
    fake_provider: FakeProvider,
    caller: Caller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """BerriAI/litellm#2677, #10018: seconds of imports before anything is answered."""
    importing, may_end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def import_for_ever() -> litellm_module.Litellm:
        loop.call_soon_threadsafe(importing.set)
        asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(timeout=60)
        raise ImportError("the test is over")

    monkeypatch.setattr(litellm_module, "_import", import_for_ever)
    with suppress(ImportError):  # the gateway waits for it at its end, to close what litellm opened
        async with gateway_within(stack, fake_provider, tmp_path) as gateway:
            await importing.wait()
            assert await gateway.unready_reason() is None
            assert (await ask_within(gateway, caller.headers, "/chat/completions", ASK)).status == 200
            may_end.set()
