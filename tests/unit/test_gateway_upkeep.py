"""Long calls keep their holds; a call whose hold is gone is stopped; upkeep survives outages."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import pytest

from core.errors import Unavailable
from core.tokens import TokenVerifier
from llm_gateway import settlement, upkeep
from llm_gateway.accounting import TokenCounts
from llm_gateway.asking import Asking
from llm_gateway.cache.key import CacheKeys
from llm_gateway.call import Call, Interruption
from llm_gateway.caller import Caller
from llm_gateway.callers import Callers
from llm_gateway.catalog import Catalog
from llm_gateway.catalog_file import TimeoutsEntry
from llm_gateway.catalog_load import load_catalog
from llm_gateway.client import Client
from llm_gateway.content.hooks import About
from llm_gateway.content.rules import ContentRules
from llm_gateway.directory import Directory, Entry, Question
from llm_gateway.keeping import Keeper, Kept
from llm_gateway.keys import KeyRing
from llm_gateway.limits.estimate import Estimate
from llm_gateway.limits.ledger import Hold, HoldRequest, Ledger, Usage
from llm_gateway.metrics import Metrics
from llm_gateway.pipeline import Pipeline
from llm_gateway.plan import Hop, Plan
from llm_gateway.providers.contract import (
    FailureKind,
    Provider,
    ProviderAnswer,
    ProviderCall,
    ProviderFailure,
    Providers,
)
from llm_gateway.settlement import Charge, DetachedTasks
from llm_gateway.times import Times
from llm_gateway.upkeep import Shutdown, every, renew_leases
from llm_gateway.wire.openai_chat import CHAT

REQUEST = CHAT.parse(b'{"model": "local/smollm2", "messages": [{"role": "user"}]}', {}, max_json_depth=8)


class Nobody(Provider):
    """Must not be asked."""

    async def ready(self) -> None:
        pass

    async def open(self, call: ProviderCall) -> ProviderAnswer:
        raise AssertionError("nobody is asked here")


class LeaseLedger(Ledger):
    """Renews what is in `alive`, and remembers who asked. While it `is_away` it neither settles nor reaps."""

    def __init__(self, *alive: str) -> None:
        self.alive = set(alive)
        self.asked: list[str] = []
        self.told: list[str] = []
        self.is_away = False
        self.tried = asyncio.Event()

    async def hold(self, request: HoldRequest) -> Hold:
        raise AssertionError("nothing is held here")

    async def settle(self, request_id: str, usage: Usage) -> None:
        self.tried.set()
        if self.is_away:
            raise Unavailable
        self.told.append(request_id)

    async def void(self, request_id: str) -> None:
        pass

    async def reprice(self, request_id: str, tokens: int, cost_nano_usd: int) -> Hold:
        raise AssertionError("nothing is repriced here")

    async def upkeep(self) -> None:
        pass

    async def renew(self, request_id: str, lease_s: float) -> bool:
        self.asked.append(request_id)
        return request_id in self.alive

    async def reap(self) -> int:
        if self.is_away:
            raise Unavailable
        return 0

    async def rehearse(self) -> bool:
        raise AssertionError("nothing is rehearsed here")

    async def aclose(self) -> None:
        pass


METRICS = Metrics(models=[], deployments=[], endpoints=[])


class NobodyIsFound(Directory):
    """Nobody is asked for here."""

    async def find(self, question: Question) -> Entry:
        raise AssertionError("nobody is identified here")


@pytest.fixture
def catalog() -> Catalog:
    return load_catalog(Path("llm_gateway/models.toml"), {"BUTTRESS_LLM_URL": "http://127.0.0.1/v1"})


def pipeline_with(catalog: Catalog, ledger: Ledger) -> Pipeline:
    nobody = Nobody()
    return Pipeline(
        catalog=catalog,
        callers=Callers(
            TokenVerifier(issuer="i", audience="a", jwt_secret="s" * 32), KeyRing("p" * 32), NobodyIsFound()
        ),
        ledger=ledger,
        asking=Asking(providers=Providers(native=nobody, translating=nobody, counting=nobody), metrics=METRICS),
        max_body_bytes=1,
        max_json_depth=1,
        metrics=METRICS,
        rules=ContentRules([], METRICS),
        keeper=Keeper(DetachedTasks(), CacheKeys("p" * 32), None, None),
    )


def a_call(pipeline: Pipeline, request_id: str, *, age_s: float, model: str = "local/smollm2") -> Call:
    named = pipeline.catalog.find(model)
    call = Call(
        caller=Caller(uuid4()),
        format_=CHAT,
        request=REQUEST,
        plan=Plan((Hop(named, named.deployments[0], Estimate(1, 1, 1)),)),
        charge=Charge(pipeline.ledger, pipeline.tasks, request_id),
        kept=Kept(),
        rules=pipeline.rules.about(About("req_1", Caller(uuid4()), "chat", model, stream=False)),
        began_s=perf_counter() - age_s,
    )
    pipeline.calls.add(call)
    return call


async def test_long_calls_are_renewed_and_one_without_a_hold_is_stopped(catalog: Catalog) -> None:
    ledger = LeaseLedger("old")
    pipeline = pipeline_with(catalog, ledger)

    async def work(request_id: str, age_s: float) -> Interruption | None:
        call = a_call(pipeline, request_id, age_s=age_s)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return call.interruption
        raise AssertionError("nothing sets the event")

    works = {
        name: asyncio.create_task(work(name, age)) for name, age in (("young", 1.0), ("old", 99.0), ("lost", 99.0))
    }
    await asyncio.sleep(0)
    await renew_leases(pipeline)
    assert sorted(ledger.asked) == ["lost", "old"]
    assert await works["lost"] is Interruption.LEASE_LOST
    assert not works["old"].done()
    for one in works.values():
        one.cancel()
    assert await works["young"] is None


class SlowToLoad(Nobody):
    """Its first call finds it after a while that is longer than the deployment may take to answer."""

    def __init__(self, until_s: float) -> None:
        self._until_s = until_s
        self.is_ready = False

    async def ready(self) -> None:
        await asyncio.sleep(self._until_s)
        self.is_ready = True

    async def open(self, call: ProviderCall) -> ProviderAnswer:
        assert self.is_ready
        raise ProviderFailure(FailureKind.REJECTED)


async def nobody_reads() -> dict[str, object]:
    raise AssertionError("the body was read")


async def nobody_writes(_: object) -> None:
    raise AssertionError("nothing is answered")


@pytest.mark.parametrize("as_fallback", [False, True])
async def test_what_takes_a_provider_long_to_load_is_not_the_deployments_time(
    catalog: Catalog, as_fallback: bool
) -> None:
    """litellm's import takes seconds; within a deadline it would be a timeout, cost all that was held, and rest."""
    pipeline = pipeline_with(catalog, LeaseLedger())
    slow = SlowToLoad(0.03)
    pipeline.asking.providers = Providers(native=slow, translating=slow, counting=slow)
    call = a_call(pipeline, "first", age_s=0.0)
    call.request = replace(call.request, stream=True)
    [hop] = call.plan.hops
    call.plan = Plan((replace(hop, deployment=replace(hop.deployment, timeouts=TimeoutsEntry(first_byte_s=0.02))),))
    if not as_fallback:
        await pipeline.asking.ready(call)
    with pytest.raises(ProviderFailure) as failure:
        await pipeline.asking.ask(
            call, Client({"headers": []}, nobody_reads, nobody_writes), asyncio.get_running_loop().time() + 60
        )
    assert failure.value.kind is FailureKind.REJECTED


async def test_a_call_that_is_being_settled_is_not_renewed(catalog: Catalog) -> None:
    ledger = LeaseLedger()
    pipeline = pipeline_with(catalog, ledger)
    call = a_call(pipeline, "settled", age_s=Times().renew_every + 1)
    call.charge.void()
    await renew_leases(pipeline)
    await pipeline.tasks.drain(60)
    assert ledger.asked == []
    assert call.interruption is None


async def test_upkeep_goes_on_after_outages_and_faults() -> None:
    outcomes: list[Exception] = [Unavailable(), ValueError("a fault of ours")]
    worked = asyncio.Event()

    async def work() -> None:
        if outcomes:
            raise outcomes.pop(0)
        worked.set()

    upkeep = asyncio.create_task(every(0.0, work, "test"))
    async with asyncio.timeout(60):
        await worked.wait()
    upkeep.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upkeep


async def test_a_lame_duck_waits_for_answers_that_could_not_say_that_it_leaves(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_TELL_S", 0.01)
    monkeypatch.setattr(upkeep, "_LOOK_EVERY_S", 0.005)
    pipeline = pipeline_with(catalog, LeaseLedger())
    pipeline.times = Times(lame_duck=0.01, grace=3600.0)
    began_before = a_call(pipeline, "before", age_s=0.0)
    leaving = asyncio.create_task(Shutdown(pipeline, silent_s=SILENT_S).lame_duck())
    await asyncio.sleep(0.1)
    a_call(pipeline, "after", age_s=0.0)  # is told, so nobody waits for it
    assert (pipeline.leaving, pipeline.draining, leaving.done()) == (True, False, False)
    pipeline.calls.discard(began_before)
    async with asyncio.timeout(60):
        await leaving


async def test_a_lame_duck_does_not_wait_longer_than_the_grace_period(catalog: Catalog) -> None:
    pipeline = pipeline_with(catalog, LeaseLedger())
    pipeline.times = Times(lame_duck=0.01, grace=0.05)
    shutdown = Shutdown(pipeline, silent_s=SILENT_S)

    async def endless() -> Interruption | None:
        call = a_call(pipeline, "endless", age_s=0.0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return call.interruption
        raise AssertionError("nothing sets the event")

    working = asyncio.create_task(endless())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await shutdown.lame_duck()
        shutdown.begin()  # as SIGINT makes it; nothing of the grace period is left
        assert await working is Interruption.SHUTDOWN
    await shutdown.finish()


SILENT_S = 0.5
USED = Usage(counts=TokenCounts(input=1, output=2), cost_nano_usd=3)


@pytest.fixture
def listening_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_LISTEN_EVERY_S", 0.005)


async def test_a_stop_waits_for_a_settlement_that_was_waiting_to_try_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "RETRY_DELAYS_S", (3600.0,))
    ledger = LeaseLedger()
    pipeline = pipeline_with(catalog, ledger)
    ledger.is_away = True
    Charge(ledger, pipeline.tasks, "late").settle(USED)
    await ledger.tried.wait()
    ledger.is_away = False
    async with asyncio.timeout(60):
        await Shutdown(pipeline, silent_s=SILENT_S).finish()
    assert ledger.told == ["late"]


@pytest.mark.usefixtures("listening_often")
async def test_a_stop_does_not_wait_for_a_ledger_that_says_nothing(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SETTLE_AT_EXIT_S", 3600.0)
    ledger = LeaseLedger()
    pipeline = pipeline_with(catalog, ledger)
    ledger.is_away = True
    Charge(ledger, pipeline.tasks, "lost").settle(USED)
    async with asyncio.timeout(60):
        await Shutdown(pipeline, silent_s=SILENT_S).finish()
        assert await pipeline.tasks.drain(60) == 0  # what is left to the reaper is not tried any more
    assert ledger.told == []


class SlowLedger(LeaseLedger):
    """Settles nothing before it was listened to for so long that a silent one would have been given up."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = True
        self.since_s = perf_counter()

    async def reap(self) -> int:
        self.is_away = perf_counter() < self.since_s + 2 * SILENT_S
        return 0


@pytest.mark.usefixtures("listening_often")
async def test_a_stop_waits_for_a_slow_settlement_while_the_ledger_answers(catalog: Catalog) -> None:
    ledger = SlowLedger()
    pipeline = pipeline_with(catalog, ledger)
    Charge(ledger, pipeline.tasks, "slow").settle(USED)
    async with asyncio.timeout(60):
        await Shutdown(pipeline, silent_s=SILENT_S).finish()
    assert ledger.told == ["slow"]


@pytest.mark.usefixtures("listening_often")
async def test_a_process_that_stood_still_does_not_take_that_for_the_ledgers_silence(catalog: Catalog) -> None:
    ledger = SlowLedger()
    pipeline = pipeline_with(catalog, ledger)
    Charge(ledger, pipeline.tasks, "slow").settle(USED)
    await ledger.tried.wait()
    for moment_s in range(1, 5):
        asyncio.get_running_loop().call_later(moment_s / 100, time.sleep, SILENT_S)
    async with asyncio.timeout(60):
        await Shutdown(pipeline, silent_s=SILENT_S).finish()
    assert ledger.told == ["slow"]
