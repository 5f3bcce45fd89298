"""The short form of `python -m tests.faults.kills`: each kind of kill, each point, some hundred calls."""

from tests.faults.kills.__main__ import survive
from tests.faults.kills.plan import POINTS, draw, draw_one_of_each
from tests.support.fake_provider import FakeProvider
from tests.support.stack import RunningStack


def test_a_seed_draws_the_same_plan_again_with_all_kinds_and_points() -> None:
    plan = draw(7, 80)
    assert plan == draw(7, 80)
    assert plan != draw(8, 80)
    assert len({(one.kill, one.point) for one in plan}) > 30
    assert {one.point for one in plan} == set(POINTS)


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
