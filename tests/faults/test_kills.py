"""The short form of `python -m tests.faults.kills`: each kind of kill, each point, some hundred calls."""

from dataclasses import replace

import pytest

from tests.faults.kills.__main__ import survive
from tests.faults.kills.books import Billed, Row, compare
from tests.faults.kills.plan import POINTS, draw, draw_one_of_each
from tests.support.fake_provider import FakeProvider
from tests.support.fake_provider.bill import BillLine
from tests.support.stack import RunningStack


def test_a_seed_draws_the_same_plan_again_with_all_kinds_and_points() -> None:
    plan = draw(7, 80)
    assert plan == draw(7, 80)
    assert plan != draw(8, 80)
    assert len({(one.kill, one.point) for one in plan}) > 30
    assert {one.point for one in plan} == set(POINTS)


def test_books_that_differ_are_noticed() -> None:
    row: Row = {
        "request_id": "call",
        "state": "settled",
        "estimated": False,
        "input_tokens": 9,
        "cached_input_tokens": 0,
        "output_tokens": 4,
        "reasoning_tokens": 0,
    }
    line = BillLine(number=1, path="", model="", user=None, stream=True, outcome="answered", usage_reported=True)
    line.input_tokens, line.output_tokens = 9, 4

    def faults(rows: list[Row], *lines: BillLine) -> set[str]:
        billed = Billed()
        if lines:
            billed.lines["call"] = list(lines)
        return set(compare(rows, billed))

    assert faults([row], line) == set()
    assert faults([{**row, "state": "expired", "estimated": True, "input_tokens": 99}], line) == set()
    assert faults([{**row, "state": "voided"}], replace(line, outcome="refused")) == set()
    assert faults([], line) == {"lost usage row"}
    assert faults([row, row], line) == {"second usage row"}
    assert faults([{**row, "state": "voided"}], line) == {"voided call that the provider worked on"}
    assert faults([{**row, "output_tokens": 5}], line) == {"settlement other than the provider counted"}
    assert faults([row], replace(line, usage_reported=False)) == {"estimate that is not flagged"}
    assert faults([row], line, line) == {"call that the provider worked on twice"}
    assert faults([row]) == {"settlement without a call at the provider that claims to be exact"}


@pytest.mark.time_limit(200)  # half a minute alone
async def test_whatever_dies_every_call_that_the_provider_worked_on_is_charged_once(
    stack: RunningStack, fake_provider: FakeProvider
) -> None:
    rounds = [one for one in draw_one_of_each(20261121) if one.kill != "postgres killed"]  # the stack is not ours alone
    verdict, billed, played = await survive(stack, fake_provider, rounds, standing_by=1)
    fake_provider.reset()
    assert verdict.problems == []
    assert played == len(rounds)
    assert billed.in_flight > 100
    assert verdict.exact > 20
