"""MemoryLedger as the gateway uses it: the words of ledger.py, the machine's clock, rows to read."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from core.errors import InternalFault
from llm_gateway.accounting import TokenCounts
from llm_gateway.limits import memory
from llm_gateway.limits.ledger import CallTooLarge, DuplicateCall, HoldLost, HoldRequest, LimitExceeded, Usage
from llm_gateway.limits.memory import MemoryLedger
from llm_gateway.limits.meters import Amount, SubjectLimits

USER, KEY, WORKSPACE = UUID(int=1), UUID(int=2), UUID(int=3)
USAGE = Usage(counts=TokenCounts(input=100, cached_input=20, output=30), cost_nano_usd=4000, deployment="test/model#1")


def a_call(
    *, tokens: int = 1000, cost_nano_usd: int = 50_000, lease_s: float = 60.0, request_id: str | None = None
) -> HoldRequest:
    return HoldRequest(
        request_id or uuid4().hex,
        USER,
        "test/model",
        tokens,
        cost_nano_usd,
        lease_s,
        key_id=KEY,
        workspace_id=WORKSPACE,
    )


async def test_a_call_is_held_settled_and_written_down() -> None:
    ledger = MemoryLedger(lambda: 1_800_000_000_000_000)
    ledger.set_limits("key", KEY, SubjectLimits(requests_per_minute=10, tokens_per_minute=6000))
    request = a_call()
    hold = await ledger.hold(request)
    assert hold.requests is not None
    assert hold.tokens is not None
    assert (hold.requests.limit, hold.requests.remaining, hold.requests.reset_s) == (10, 9, 6.0)
    assert (hold.tokens.limit, hold.tokens.remaining, hold.tokens.reset_s) == (6000, 5000, 10.0)
    [held] = ledger.holds()
    assert (held.request, held.amount) == (request, Amount(1000, 50_000))

    await ledger.settle(request.request_id, USAGE)
    await ledger.settle(request.request_id, USAGE)
    await ledger.void(request.request_id)
    [call] = ledger.usage()
    assert (call.request, call.state, call.usage, call.held) == (request, "settled", USAGE, Amount(1000, 50_000))
    for scope, subject in (("user", USER), ("key", KEY), ("workspace", WORKSPACE)):
        meter = ledger.meter(scope, subject)  # type: ignore[arg-type]
        assert meter is not None
        assert (meter.in_flight, meter.day_tokens, meter.month_nano_usd) == (0, 150, 4000)
    assert not list(ledger.holds())


async def test_refusals_arrive_as_what_they_are() -> None:
    ledger = MemoryLedger()
    ledger.set_limits("workspace", WORKSPACE, SubjectLimits(calls_in_flight=1, tokens_per_minute=1000))
    request = a_call()
    await ledger.hold(request)
    with pytest.raises(LimitExceeded, match="This workspace has 1 calls at a time") as refusal:
        await ledger.hold(a_call(tokens=0))
    assert (refusal.value.scope, refusal.value.limit_name, refusal.value.retry_after_s) == (
        "workspace",
        "calls_in_flight",
        1.0,
    )
    with pytest.raises(CallTooLarge):
        await ledger.hold(a_call(tokens=1001))
    with pytest.raises(CallTooLarge):
        await ledger.reprice(request.request_id, 1001, 0)
    await ledger.void(request.request_id)
    with pytest.raises(DuplicateCall):
        await ledger.hold(request)
    with pytest.raises(HoldLost):
        await ledger.reprice(request.request_id, 10, 0)


async def test_a_fallback_holds_what_it_may_cost() -> None:
    ledger = MemoryLedger(lambda: 1_800_000_000_000_000)
    request = a_call(tokens=10, cost_nano_usd=10)
    await ledger.hold(request)
    hold = await ledger.reprice(request.request_id, 500, 700)
    assert hold.tokens is not None
    assert hold.tokens.remaining == 200_000 - 500
    assert [held.amount for held in ledger.holds()] == [Amount(500, 700)]


async def test_a_renewed_lease_lasts_and_one_that_ran_out_is_charged_in_full() -> None:
    now_us = 1_800_000_000_000_000
    ledger = MemoryLedger(lambda: now_us)
    requests = [a_call(lease_s=1), a_call(lease_s=1)]
    for request in requests:
        await ledger.hold(request)
    assert await ledger.renew(requests[1].request_id, 60)
    now_us += 1_000_000
    assert await ledger.reap() == 1
    assert not await ledger.renew(requests[0].request_id, 60)
    [call] = ledger.usage()
    assert (call.state, call.usage.outcome, call.usage.estimated) == ("expired", "unknown", True)
    assert (call.usage.counts.total, call.usage.cost_nano_usd) == (1000, 50_000)


async def test_limits_come_from_the_subject_then_its_plan_then_the_default_plan() -> None:
    ledger = MemoryLedger(default_plan=SubjectLimits(requests_per_minute=1, calls_in_flight=2))
    ledger.set_plan("pro", SubjectLimits(requests_per_minute=600))
    assert ledger.limits_of("user", USER) == SubjectLimits(requests_per_minute=1, calls_in_flight=2)
    assert ledger.limits_of("key", KEY) == SubjectLimits()
    ledger.set_limits("user", USER, SubjectLimits(tokens_per_day=7), plan="pro")
    ledger.set_limits("key", KEY, plan="pro")
    assert ledger.limits_of("user", USER) == SubjectLimits(requests_per_minute=600, tokens_per_day=7)
    assert ledger.limits_of("key", KEY) == SubjectLimits(requests_per_minute=600)
    ledger.set_limits("user", USER, SubjectLimits(requests_per_minute=0))
    ledger.set_default_plan(SubjectLimits(requests_per_minute=5, calls_in_flight=6))
    assert ledger.limits_of("user", USER) == SubjectLimits(requests_per_minute=0, calls_in_flight=6)
    with pytest.raises(KeyError):
        ledger.set_limits("user", USER, plan="no such plan")


async def test_what_was_used_is_forgotten_once_it_is_older_than_the_books_are_kept() -> None:
    now_us = 1_800_000_000_000_000
    ledger = MemoryLedger(lambda: now_us)
    for _ in range(2):
        request = a_call()
        await ledger.hold(request)
        await ledger.settle(request.request_id, USAGE)
        now_us += memory.KEPT_FOR_US
    await ledger.upkeep()
    assert [call.request for call in ledger.usage()] == [request]
    await ledger.aclose()


@pytest.mark.parametrize(
    "request_",
    [
        a_call(tokens=-1),
        a_call(tokens=10**9 + 1),
        a_call(cost_nano_usd=-1),
        a_call(cost_nano_usd=10**15 + 1),
        a_call(lease_s=0.999),
        a_call(lease_s=3600.001),
    ],
)
async def test_amounts_out_of_range_are_our_fault(request_: HoldRequest) -> None:
    with pytest.raises(InternalFault):
        await MemoryLedger().hold(request_)
