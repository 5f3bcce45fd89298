"""Many calls in one statement end exactly as they would one after the other."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.ledger import (
    NOW_US,
    Clockwork,
    Finish,
    NewCall,
    TestLimits,
    clockwork_of_its_own,
    new_user,
    set_limits,
    user_with,
)


@pytest.fixture
async def clockwork(database: asyncpg.Connection) -> AsyncIterator[Clockwork]:
    async with clockwork_of_its_own(database) as own:
        yield own


async def meter_of(clockwork: Clockwork, user_id: UUID) -> dict[str, Any]:
    row = await clockwork.database.fetchrow("select * from gateway.meters where subject_id = $1", user_id)
    assert row is not None
    return dict(row)


def verdicts(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["verdict"] for answer in answers]


async def test_of_a_batch_those_that_fit_are_held_in_the_order_they_came(clockwork: Clockwork) -> None:
    small = await user_with(clockwork, tokens_per_minute=1000, calls_in_flight=3)
    other = await user_with(clockwork)
    calls = [NewCall(user_id=small, tokens=tokens) for tokens in (600, 600, 1001, 300, 100, 1)]
    calls.insert(3, NewCall(user_id=other))
    calls.insert(4, NewCall(user_id=uuid4()))
    answers = await clockwork.post(NOW_US, new=calls)
    assert verdicts(answers) == ["held", "refused", "too_large", "held", "unknown_user", "held", "held", "refused"]
    assert [answer["limit_name"] for answer in answers if answer["verdict"] == "refused"] == [
        "tokens_per_minute",
        "calls_in_flight",
    ]
    assert answers[1]["retry_after_ms"] == 12_000, "what came before it in the batch counts"
    assert [answers[place]["tokens_remaining"] for place in (0, 5, 6)] == [400, 100, 0]
    meter = await meter_of(clockwork, small)
    assert (meter["in_flight"], meter["held_tokens"]) == (3, 1000)


async def test_what_is_finished_in_a_batch_makes_room_for_what_is_new_in_it(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, calls_in_flight=1, nano_usd_per_month=100)
    await clockwork.hold(NOW_US, user_id, request_id="a", cost_nano_usd=100)
    answers = await clockwork.post(
        NOW_US,
        [Finish(request_id="a", cost_nano_usd=40)],
        [NewCall(user_id=user_id, cost_nano_usd=60), NewCall(user_id=user_id)],
    )
    assert verdicts(answers) == ["settled", "held", "refused"]


async def test_an_id_that_is_taken_leaves_its_neighbours_as_if_it_had_not_been_there(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork, calls_in_flight=4, tokens_per_minute=6000)
    await clockwork.hold(NOW_US, user_id, request_id="running", attempt=(attempt := uuid4()), tokens=0)
    await clockwork.hold(NOW_US, user_id, request_id="done", tokens=0)
    await clockwork.void(NOW_US, "done")
    answers = await clockwork.post(
        NOW_US,
        new=[
            NewCall(user_id=user_id, request_id="running", tokens=1000),
            NewCall(user_id=user_id, request_id="done", tokens=1000),
            NewCall(user_id=user_id, request_id="running", attempt=attempt, tokens=0),
            NewCall(user_id=user_id, request_id="twice", tokens=1000),
            NewCall(user_id=user_id, request_id="twice", tokens=1000),
            NewCall(user_id=user_id, request_id="new", tokens=5000),
        ],
    )
    assert verdicts(answers) == ["duplicate", "duplicate", "held", "held", "duplicate", "held"]
    assert answers[-1]["tokens_remaining"] == 0
    meter = await meter_of(clockwork, user_id)
    assert (meter["in_flight"], meter["held_tokens"]) == (3, 6000)
    held = await clockwork.database.fetch("select request_id from gateway.holds where user_id = $1", user_id)
    assert sorted(row[0] for row in held) == ["new", "running", "twice"]


async def test_one_that_finishes_twice_in_a_batch_ends_the_batch_and_nothing_has_happened(clockwork: Clockwork) -> None:
    user_id = await user_with(clockwork)
    await clockwork.hold(NOW_US, user_id, request_id="a", tokens=10)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="each call once"):
        async with clockwork.database.transaction():
            await clockwork.post(NOW_US, [Finish(request_id="a"), Finish(request_id="a", state="voided")])
    assert (await meter_of(clockwork, user_id))["in_flight"] == 1


@pytest.mark.parametrize("seed", range(6))
async def test_a_batch_ends_as_its_calls_would_one_by_one(clockwork: Clockwork, seed: int) -> None:
    """The same steps twice, in batches and singly, for two sets of subjects with the same limits."""
    rng = random.Random(seed)
    worlds = [await a_world(clockwork, random.Random(seed)) for _ in range(2)]
    running: list[int] = []
    now_us, number = NOW_US, 0
    for _ in range(12):
        now_us += rng.choice([0, 1, 250_000, 3_000_000, 61_000_000])
        done = [(call, rng.choice([0, 3, 100, 900]), rng.choice(["settled", "voided"])) for call in running]
        rng.shuffle(done)
        done = done[: rng.randint(0, len(done))]
        new = [
            (number + place, rng.randrange(8), rng.choice([0, 1, 50, 400]), rng.choice([0, 0, 7, 300]))
            for place in range(rng.randint(0, 9))
        ]
        number += len(new)
        together = await worlds[0].post(now_us, done, new)
        singly = [answer for one in done for answer in await worlds[1].post(now_us, [one], [])]
        singly += [answer for one in new for answer in await worlds[1].post(now_us, [], [one])]
        assert together == singly
        assert await worlds[0].meters() == await worlds[1].meters()
        finished = {call for call, _, _ in done}
        running = [call for call in running if call not in finished]
        answers = together[len(done) :]
        running += [call[0] for call, answer in zip(new, answers, strict=True) if answer["verdict"] == "held"]
    assert number > 20


class World:
    """Two users, two keys, a workspace; a caller is one of the eight ways to call with them."""

    def __init__(self, clockwork: Clockwork, users: list[UUID]) -> None:
        self.clockwork = clockwork
        self.users = users
        self.keys = [uuid4(), uuid4()]
        self.workspace = uuid4()
        self.prefix = uuid4().hex[:8]

    async def post(
        self, now_us: int, done: list[tuple[int, int, str]], new: list[tuple[int, int, int, int]]
    ) -> list[dict[str, Any]]:
        return await self.clockwork.post(
            now_us,
            [
                Finish(
                    request_id=f"{self.prefix}-{call}",
                    state=state,
                    tokens=used if state == "settled" else 0,
                    cost_nano_usd=used if state == "settled" else 0,
                )
                for call, used, state in done
            ],
            [
                NewCall(
                    user_id=self.users[caller % 2],
                    key_id=self.keys[caller % 2] if caller & 2 else None,
                    workspace_id=self.workspace if caller & 4 else None,
                    request_id=f"{self.prefix}-{call}",
                    tokens=tokens,
                    cost_nano_usd=cost,
                )
                for call, caller, tokens, cost in new
            ],
        )

    async def meters(self) -> list[dict[str, Any]]:
        rows = [
            *[await self.meter(user_id, "user") for user_id in self.users],
            *[await self.meter(key_id, "key") for key_id in self.keys],
            await self.meter(self.workspace, "workspace"),
        ]
        return [{name: value for name, value in row.items() if name != "subject_id"} for row in rows]

    async def meter(self, subject_id: UUID, scope: str) -> dict[str, Any]:
        row = await self.clockwork.database.fetchrow(
            "select * from gateway.meters where scope = $1 and subject_id = $2", scope, subject_id
        )
        return dict(row) if row else {}


async def a_world(clockwork: Clockwork, rng: random.Random) -> World:
    database = clockwork.database
    world = World(clockwork, [await new_user(database, TestLimits(20, 1500, 6, 2000, 4000, 900)) for _ in range(2)])
    await set_limits(database, world.keys[0], TestLimits(rng.choice([3, 30]), 700, 4), scope="key")
    await set_limits(database, world.workspace, TestLimits(40, rng.choice([800, 8000]), 5, 1500), scope="workspace")
    return world
