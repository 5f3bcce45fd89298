"""A call is resolved once, in a task of its own, however often the ledger must be told and whoever is cancelled."""

import asyncio
from uuid import uuid4

import pytest

from core.errors import InternalFault, Unavailable
from llm_gateway import settlement
from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import Hold, HoldRequest, Ledger, Usage
from llm_gateway.settlement import Charge, DetachedTasks

USED = Usage(counts=TokenCounts(input=1, output=2), cost_nano_usd=3)


class ScriptedLedger(Ledger):
    """Answers each settle and void with the next of `outcomes`; afterwards it works. Waits for `open` first."""

    def __init__(self, *outcomes: Exception) -> None:
        self.outcomes = list(outcomes)
        self.told: list[tuple[str, Usage | None]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def hold(self, request: HoldRequest) -> Hold:
        raise AssertionError("nothing is held here")

    async def settle(self, request_id: str, usage: Usage) -> None:
        await self._told(request_id, usage)

    async def void(self, request_id: str) -> None:
        await self._told(request_id, None)

    async def reprice(self, request_id: str, tokens: int, cost_nano_usd: int) -> Hold:
        raise AssertionError("nothing is repriced here")

    async def upkeep(self) -> None:
        pass

    async def renew(self, request_id: str, lease_s: float) -> bool:
        raise AssertionError("nothing is renewed here")

    async def reap(self) -> int:
        return 0

    async def rehearse(self) -> bool:
        raise AssertionError("nothing is rehearsed here")

    async def aclose(self) -> None:
        pass

    async def _told(self, request_id: str, usage: Usage | None) -> None:
        await self.open.wait()
        if self.outcomes:
            raise self.outcomes.pop(0)
        self.told.append((request_id, usage))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))


async def test_the_first_resolution_counts() -> None:
    ledger, tasks = ScriptedLedger(), DetachedTasks()
    charge = Charge(ledger, tasks, "call")
    charge.settle(USED)
    charge.void()
    charge.settle(Usage(counts=TokenCounts(input=9, output=9), cost_nano_usd=9))
    assert await tasks.drain(60) == 0
    assert ledger.told == [("call", USED)]


@pytest.mark.usefixtures("at_once")
async def test_an_outage_is_sat_out() -> None:
    ledger, tasks = ScriptedLedger(Unavailable(), Unavailable()), DetachedTasks()
    Charge(ledger, tasks, "settled").settle(USED)
    Charge(ledger, tasks, "voided").void()
    assert await tasks.drain(60) == 0
    assert sorted(ledger.told, key=str) == sorted([("settled", USED), ("voided", None)], key=str)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("failure", [Unavailable(), InternalFault()])
async def test_what_cannot_be_settled_is_left_to_the_lease(failure: Exception) -> None:
    ledger, tasks = ScriptedLedger(*[failure] * 4), DetachedTasks()
    Charge(ledger, tasks, "call").settle(USED)
    assert await tasks.drain(60) == 0
    assert ledger.told == []


async def test_a_cancelled_request_still_settles() -> None:
    ledger, tasks = ScriptedLedger(), DetachedTasks()
    ledger.open.clear()
    charge = Charge(ledger, tasks, str(uuid4()))

    async def request() -> None:
        charge.settle(USED)
        await charge.resolved(60)

    serving = asyncio.create_task(request())
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert len(tasks) == 1
    ledger.open.set()
    assert await tasks.drain(60) == 0
    assert ledger.told == [(charge.request_id, USED)]


async def test_draining_gives_up_at_its_deadline_and_says_how_much_is_left() -> None:
    ledger, tasks = ScriptedLedger(), DetachedTasks()
    ledger.open.clear()
    Charge(ledger, tasks, "slow").settle(USED)
    assert await tasks.drain(0.01) == 1
    ledger.open.set()
    assert await tasks.drain(60) == 0
