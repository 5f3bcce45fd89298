"""What every store promises of one call: it is charged once, ends once, and is written down once."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Final
from uuid import uuid4

import pytest

from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import LimitName, Scope, Usage
from llm_gateway.limits.meters import Amount, SubjectLimits
from llm_gateway.limits.standing import subjects_of
from tests.support.ledger_calls import AMOUNTS, SCOPES, Trio, limit, usage
from tests.support.ledger_stores import NOW_US, HoldRow, UsageRow

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
every_amount_of_every_scope = pytest.mark.parametrize(("scope", "name"), list(product(SCOPES, AMOUNTS)))


async def written(trio: Trio, request_id: str) -> UsageRow:
    """The one usage row of the call."""
    [row] = (await trio.store.usage([request_id]))[request_id]
    return row


async def held(trio: Trio, request_id: str) -> HoldRow:
    return (await trio.store.snapshot([])).holds[request_id]


async def used(trio: Trio, scope: Scope = "user") -> tuple[int, int, int, int, int]:
    """Calls in flight, tokens and money held, tokens and money used today."""
    subject = trio.subjects[scope]
    meter = (await trio.store.snapshot([subject])).meters[subject]
    return meter.in_flight, meter.held_tokens, meter.held_nano_usd, meter.day_tokens, meter.day_nano_usd


async def test_a_settled_call_is_one_row_that_says_all_of_it(trio: Trio) -> None:
    request = trio.call(tokens=1000, cost_nano_usd=50_000)
    await trio.store.hold(request, uuid4())
    what = Usage(
        counts=TokenCounts(
            input=1,
            cached_input=20,
            cache_write_5m=300,
            cache_write_1h=4000,
            input_audio=50_000,
            output=600_000,
            reasoning=7_000_000,
            output_audio=80_000_000,
            images=9,
        ),
        cost_nano_usd=4_000,
        estimated=True,
        outcome="client_gone",
        deployment="test/model#1",
        endpoint="chat",
    )
    trio.store.now_us += 12_345
    assert await trio.store.settle(request.request_id, what) == "settled"
    row = await written(trio, request.request_id)
    assert row == UsageRow("settled", what, Amount(1000, 50_000), NOW_US, NOW_US + 12_345, subjects_of(request))
    for scope in SCOPES:
        assert await used(trio, scope) == (0, 0, 0, 87_654_321, 4_000)


@every_amount_of_every_scope
async def test_what_was_not_used_is_there_again_at_once(trio: Trio, scope: Scope, name: LimitName) -> None:
    await trio.limit(scope, limit(name, 6000))
    await trio.ask(name, 6000, "a")
    await trio.store.settle("a", usage(1000, 1000))
    assert (await trio.ask(name, 5001)).verdict == "refused"
    assert (await trio.ask(name, 5000)).verdict == "held"


@pytest.mark.parametrize("scope", SCOPES)
async def test_tokens_that_were_refilled_already_are_not_given_back_a_second_time(trio: Trio, scope: Scope) -> None:
    await trio.limit(scope, limit("tokens_per_minute", 6000))
    await trio.hold("long", tokens=6000)
    trio.store.now_us += MINUTE_US
    await trio.hold("full", tokens=6000)
    await trio.store.settle("long", usage())
    assert (await trio.hold(tokens=1)).verdict == "refused"
    await trio.store.settle("full", usage())
    assert (await trio.hold(tokens=6000)).verdict == "held"


async def test_who_finishes_second_changes_nothing_and_learns_what_happened(trio: Trio) -> None:
    await trio.hold("a", cost_nano_usd=100, lease_s=1)
    assert await trio.store.settle("a", usage(cost_nano_usd=40)) == "settled"
    assert await trio.store.settle("a", usage(cost_nano_usd=90)) == "settled"
    assert await trio.store.void("a") == "settled"
    trio.store.now_us += 2 * SECOND_US
    assert await trio.store.reap() == 0
    assert (await written(trio, "a")).usage.cost_nano_usd == 40
    assert await used(trio) == (0, 0, 0, 0, 40)


async def test_what_was_never_held_cannot_be_finished(trio: Trio) -> None:
    assert await trio.store.settle("never held", usage(1, 1)) == "unknown"
    assert await trio.store.void("never held") == "unknown"
    assert await trio.store.usage(["never held"]) == {"never held": []}


@pytest.mark.parametrize("scope", SCOPES)
async def test_void_gives_back_everything_but_the_request(trio: Trio, scope: Scope) -> None:
    await trio.limit(scope, SubjectLimits(requests_per_minute=2, tokens_per_minute=500, nano_usd_per_month=700))
    await trio.hold("a", tokens=500, cost_nano_usd=700)
    assert await trio.store.void("a") == "voided"
    assert await trio.store.settle("a", usage(1, 1)) == "voided"
    row = await written(trio, "a")
    assert (row.state, row.usage.counts.total, row.usage.cost_nano_usd) == ("voided", 0, 0)
    again = await trio.hold(tokens=500, cost_nano_usd=700)
    assert again.verdict == "held"
    assert again.requests is not None
    assert again.requests.remaining == 0


async def test_void_by_attempt_meets_only_the_hold_of_that_attempt(trio: Trio) -> None:
    attempt = uuid4()
    await trio.hold("a", attempt=attempt)
    assert await trio.store.void("a", uuid4()) == "unknown"
    assert (await used(trio))[0] == 1
    assert await trio.store.void("a", attempt) == "voided"
    assert await trio.store.void("a", uuid4()) == "voided"


async def test_the_reaper_charges_what_was_held_once_the_lease_is_over_and_says_that_it_guessed(trio: Trio) -> None:
    await trio.hold("a", tokens=500, cost_nano_usd=700, lease_s=5)
    trio.store.now_us += 5 * SECOND_US - 1
    assert await trio.store.reap() == 0
    trio.store.now_us += 1
    assert await trio.store.reap() == 1
    assert await trio.store.reap() == 0
    row = await written(trio, "a")
    assert (row.state, row.usage.outcome, row.usage.estimated) == ("expired", "unknown", True)
    assert (row.usage.counts, row.usage.cost_nano_usd) == (TokenCounts(input=500), 700)
    assert await trio.store.settle("a", usage(1, 1)) == "expired"
    for scope in SCOPES:
        assert await used(trio, scope) == (0, 0, 0, 500, 700)


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_place_in_flight_is_free_again_by_settle_by_void_and_by_reap(trio: Trio, scope: Scope) -> None:
    await trio.limit(scope, limit("calls_in_flight", 3))
    for name in ("settled", "voided", "reaped"):
        await trio.hold(name, lease_s=1)
    assert (await trio.hold()).limit_name == "calls_in_flight"
    await trio.store.settle("settled", usage())
    await trio.store.void("voided")
    trio.store.now_us += SECOND_US
    await trio.store.reap()
    assert [(await trio.hold()).verdict for _ in range(4)] == ["held", "held", "held", "refused"]


async def test_a_lease_that_is_over_can_still_be_settled_until_it_is_reaped(trio: Trio) -> None:
    await trio.hold("a", tokens=500, cost_nano_usd=700, lease_s=5)
    trio.store.now_us += MINUTE_US
    assert await trio.store.settle("a", usage(5, 7)) == "settled"
    assert await trio.store.reap() == 0


async def test_the_reaper_takes_a_hundred_at_once_the_most_overdue_first(trio: Trio) -> None:
    for number in range(103):
        await trio.hold(f"r{number}", lease_s=1 + number)
    trio.store.now_us += 103 * SECOND_US
    assert await trio.store.reap() == 100
    assert sorted((await trio.store.snapshot([])).holds) == ["r100", "r101", "r102"]
    assert await trio.store.reap() == 3


async def test_a_renewed_lease_outlives_the_old_one_and_is_never_shortened(trio: Trio) -> None:
    await trio.hold("a", lease_s=10)
    trio.store.now_us += 5 * SECOND_US
    assert await trio.store.renew("a", 10)
    assert await trio.store.renew("a", 1)
    trio.store.now_us += 9 * SECOND_US
    assert await trio.store.reap() == 0
    trio.store.now_us += SECOND_US
    assert await trio.store.reap() == 1
    assert not await trio.store.renew("a", 10)


async def test_the_same_id_is_charged_once_and_let_through_once(trio: Trio) -> None:
    attempt = uuid4()
    answers = [await trio.hold("a", tokens=10, attempt=one) for one in (attempt, attempt, uuid4())]
    assert [answer.verdict for answer in answers] == ["held", "held", "duplicate"]
    assert (await used(trio))[:2] == (1, 10)
    await trio.store.settle("a", usage(10))
    other = Trio(trio.store, uuid4())
    await trio.store.add_user(other.subjects["user"][1])
    again = [await trio.hold("a", attempt=attempt), await trio.hold("a"), await other.hold("a")]
    assert [answer.verdict for answer in again] == ["duplicate"] * 3
    assert not (await trio.store.snapshot([])).holds


async def test_a_lost_answer_is_given_again_even_when_nothing_more_would_fit(trio: Trio) -> None:
    await trio.limit("workspace", limit("calls_in_flight", 1))
    attempt = uuid4()
    await trio.hold("a", attempt=attempt)
    assert (await trio.hold("a", attempt=attempt)).verdict == "held"
    assert (await trio.hold("a")).verdict == "refused"


@every_amount_of_every_scope
async def test_a_hold_is_repriced_up_to_exactly_the_limit_and_no_further(
    trio: Trio, scope: Scope, name: LimitName
) -> None:
    await trio.limit(scope, limit(name, 1000))
    await trio.ask(name, 300, "others")
    await trio.ask(name, 100, "a")
    before = await held(trio, "a")
    refused = await trio.store.reprice("a", Amount(701, 701))
    assert (refused.verdict, refused.scope, refused.limit_name) == ("refused", scope, name)
    assert refused.retry_after_ms == (60 if name == "tokens_per_minute" else 1000)
    too_large = await trio.store.reprice("a", Amount(1001, 1001))
    assert (too_large.verdict, too_large.scope, too_large.limit_name) == ("too_large", scope, name)
    assert await held(trio, "a") == before
    assert (await trio.store.reprice("a", Amount(700, 700))).verdict == "held"
    assert await held(trio, "a") == replace(before, amount=Amount(700, 700))
    assert (await trio.ask(name, 1)).verdict == "refused"


@every_amount_of_every_scope
async def test_a_hold_repriced_down_gives_back_the_rest_and_is_never_refused(
    trio: Trio, scope: Scope, name: LimitName
) -> None:
    await trio.limit(scope, limit(name, 1000))
    await trio.ask(name, 1000, "a")
    await trio.limit(scope, SubjectLimits(**{"requests_per_minute": 0, "calls_in_flight": 0, name: 1000}))
    assert (await trio.store.reprice("a", Amount(400, 400))).verdict == "held"
    await trio.limit(scope, limit(name, 1000))
    assert (await trio.ask(name, 601)).verdict == "refused"
    assert (await trio.ask(name, 600)).verdict == "held"
    await trio.limit(scope, limit(name, 0))
    assert (await trio.store.reprice("a", Amount(1, 1))).verdict == "held"


async def test_a_repriced_call_is_settled_against_what_it_holds_now(trio: Trio) -> None:
    await trio.hold("a", tokens=100, cost_nano_usd=100)
    await trio.store.reprice("a", Amount(50, 900))
    for scope in SCOPES:
        assert await used(trio, scope) == (1, 50, 900, 0, 0)
    await trio.store.settle("a", usage(60, 800))
    assert (await written(trio, "a")).held == Amount(50, 900)
    for scope in SCOPES:
        assert await used(trio, scope) == (0, 0, 0, 60, 800)


async def test_tokens_repriced_up_are_given_back_only_as_far_as_they_are_the_calls_own(trio: Trio) -> None:
    """Others' tokens, charged between the hold and its new price, are not to be had by settling it."""
    await trio.limit("user", limit("tokens_per_minute", 6000))
    await trio.hold("a", tokens=6000)
    trio.store.now_us += MINUTE_US
    await trio.hold("others", tokens=5000)
    assert (await trio.store.reprice("a", Amount(7000, 0))).verdict == "too_large"
    assert (await trio.store.reprice("a", Amount(6000, 1))).verdict == "held"
    await trio.store.settle("a", usage())
    assert (await trio.hold(tokens=1001)).verdict == "refused"


async def test_a_call_that_is_over_or_never_was_cannot_be_repriced(trio: Trio) -> None:
    await trio.hold("a")
    await trio.store.void("a")
    assert [(await trio.store.reprice(name, Amount(1, 1))).verdict for name in ("a", "never held")] == ["lost"] * 2


@pytest.mark.parametrize("tokens", [0, 10], ids=["it fits", "it does not"])
async def test_an_id_that_is_taken_stands_in_no_other_calls_way(trio: Trio, tokens: int) -> None:
    """They come together: the others are held, and what was charged for them is theirs."""
    await trio.hold("over", cost_nano_usd=1)
    await trio.store.settle("over", usage())
    await trio.limit("user", limit("tokens_per_minute", 5))
    calls = [trio.call("new", tokens=3), trio.call("over", tokens=tokens), trio.call("newer", tokens=2)]
    answers = await trio.store.post([], [(call, uuid4()) for call in calls])
    verdicts = [answer if isinstance(answer, str) else answer.verdict for answer in answers]
    assert verdicts == ["held", "too_large" if tokens else "duplicate", "held"]
    assert sorted((await trio.store.snapshot([])).holds) == ["new", "newer"]
    assert await used(trio) == (2, 5, 0, 0, 0)


async def test_of_calls_with_one_id_that_come_together_the_first_is_held(trio: Trio) -> None:
    calls = [(trio.call("same", tokens=tokens), uuid4()) for tokens in (3, 4, 5)]
    answers = await trio.store.post([], calls)
    assert [answer if isinstance(answer, str) else answer.verdict for answer in answers] == [
        "held",
        "duplicate",
        "duplicate",
    ]
    assert (await held(trio, "same")).amount == Amount(3, 0)
    assert (await used(trio))[:2] == (1, 3)


async def test_what_ends_makes_room_for_what_comes_with_it(trio: Trio) -> None:
    await trio.limit("key", SubjectLimits(calls_in_flight=1, nano_usd_per_day=100))
    await trio.hold("a", cost_nano_usd=100)
    calls = [(trio.call("b", cost_nano_usd=60), uuid4()), (trio.call("c", cost_nano_usd=60), uuid4())]
    ended, first, second = await trio.store.post([("a", None, usage(cost_nano_usd=40))], calls)
    assert ended == "settled"
    assert not isinstance(first, str)
    assert not isinstance(second, str)
    assert (first.verdict, second.verdict) == ("held", "refused")
