"""The ledger against a plain model of it: seeded steps, everything compared after each of them.

Another or a longer run: BUTTRESS_LEDGER_SEED="7 8" BUTTRESS_LEDGER_STEPS=100000 in the environment.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import pytest

from tests.support.ledger import NOW_US, Clockwork, TestLimits, clockwork_of_its_own, new_user, set_limits
from tests.support.ledger_model import UserModel, unit_ns

SEEDS = [int(seed) for seed in os.environ.get("BUTTRESS_LEDGER_SEED", "1 2 3").split()]
STEPS = int(os.environ.get("BUTTRESS_LEDGER_STEPS", "700"))
USERS = 3


def some_limits(rng: random.Random) -> TestLimits:
    return TestLimits(
        requests_per_minute=rng.choice([0, 1, 7, 50, 1000]),
        tokens_per_minute=rng.choice([7, 1000, 64_000, 1_000_000]),
        calls_in_flight=rng.choice([0, 1, 5, 100]),
        nano_usd_per_month=rng.choice([0, 1_000, 1_000_000]),
    )


@dataclass
class Simulation:
    """Users, their models, and a clock that only the simulation moves."""

    rng: random.Random
    clockwork: Clockwork
    edits: bool
    now_us: int = NOW_US
    users: dict[UUID, UserModel] = field(default_factory=dict)
    made: list[tuple[UUID, str, UUID]] = field(default_factory=list)

    async def add_user(self, limits: TestLimits) -> None:
        self.users[await new_user(self.clockwork.database, limits)] = UserModel(limits)

    async def step(self) -> None:
        """One thing happens, to the ledger and to the model, with the same result."""
        actions = [self.hold, self.hold, self.hold, self.finish, self.finish, self.finish_again, self.void]
        actions += [self.hold_again, self.renew, self.reap, self.wait, self.wait]
        if self.edits:
            actions.append(self.edit)
        await self.rng.choice(actions)()
        for user_id, model in self.users.items():
            await self.compare(user_id, model)

    async def hold(self) -> None:
        await self.try_hold(self.rng.choice(list(self.users)), f"req_{self.rng.getrandbits(64):x}", self.new_attempt())

    async def hold_again(self) -> None:
        """Somebody lost an answer, or takes an id that is taken; sometimes another user's."""
        if self.made:
            user_id, request_id, attempt = self.rng.choice(self.made)
            await self.try_hold(user_id, request_id, attempt if self.rng.random() < 0.5 else self.new_attempt())

    async def try_hold(self, user_id: UUID, request_id: str, attempt: UUID) -> None:
        model = self.users[user_id]
        tokens = self.rng.choice([0, 1, 5, model.limits.tokens_per_minute // 3, model.limits.tokens_per_minute + 1])
        cost = self.rng.choice([0, 1, 333, model.limits.nano_usd_per_month // 4, model.limits.nano_usd_per_month + 1])
        lease_ms = self.rng.choice([1000, 60_000, 3_600_000])
        answer = await self.clockwork.hold(
            self.now_us,
            user_id,
            request_id=request_id,
            attempt=attempt,
            tokens=tokens,
            cost_nano_usd=cost,
            lease_ms=lease_ms,
        )
        verdict, refusal = model.hold(
            self.now_us, request_id, attempt, tokens=tokens, cost_nano_usd=cost, lease_ms=lease_ms
        )
        assert answer["verdict"] == verdict
        if refusal is not None:
            assert (answer["limit_name"], answer["retry_after_ms"]) == (refusal.limit_name, refusal.wait_ms)
        if verdict == "held":
            self.made.append((user_id, request_id, attempt))

    async def finish(self) -> None:
        open_calls = [(user_id, name) for user_id, model in self.users.items() for name in model.holds]
        if open_calls:
            await self.settle(*self.rng.choice(open_calls))

    async def finish_again(self) -> None:
        if self.made:
            user_id, request_id, _ = self.rng.choice(self.made)
            await self.settle(user_id, request_id)

    async def settle(self, user_id: UUID, request_id: str) -> None:
        model = self.users[user_id]
        held = model.holds.get(request_id)
        most, worst = (held.tokens, held.cost_nano_usd) if held else (0, 0)
        tokens, cost = self.rng.randint(0, most), self.rng.randint(0, worst)
        if self.edits and self.rng.random() < 0.1:  # more than held: debt
            tokens, cost = most + self.rng.randint(0, 3000), worst + self.rng.randint(0, 1000)
        state = await self.clockwork.settle(self.now_us, request_id, tokens=tokens, cost_nano_usd=cost)
        assert state == model.finish(self.now_us, request_id, "settled", tokens, cost)

    async def void(self) -> None:
        if self.made:
            user_id, request_id, attempt = self.rng.choice(self.made)
            right = self.rng.random() < 0.7
            state = await self.clockwork.void(self.now_us, request_id, attempt if right else self.new_attempt())
            if right or request_id in self.users[user_id].usage:
                assert state == self.users[user_id].finish(self.now_us, request_id, "voided", 0, 0)
            else:
                assert state == "unknown"

    async def renew(self) -> None:
        if self.made:
            user_id, request_id, _ = self.rng.choice(self.made)
            lease_ms = self.rng.choice([1000, 120_000])
            renewed = await self.clockwork.renew(self.now_us, request_id, lease_ms)
            assert renewed == self.users[user_id].renew(self.now_us, request_id, lease_ms)

    async def reap(self) -> None:
        overdue = [(model, name) for model in self.users.values() for name in model.overdue(self.now_us)]
        assert await self.clockwork.reap(self.now_us) == len(overdue)
        for model, request_id in overdue:
            model.finish(self.now_us, request_id, "expired", 0, 0)

    async def wait(self) -> None:
        self.now_us += self.rng.choice([1, 999, 100_000, 3_000_000, 30_000_000, 70_000_000, 86_400_000_000 * 9])

    async def edit(self) -> None:
        user_id = self.rng.choice(list(self.users))
        self.users[user_id].limits = some_limits(self.rng)
        await set_limits(self.clockwork.database, user_id, self.users[user_id].limits)

    def new_attempt(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128))

    async def compare(self, user_id: UUID, model: UserModel) -> None:
        """The meter is what the model says, and what holds and usage add up to."""
        totals = await self.clockwork.database.fetchrow(
            """
            select
                (select count(*) from gateway.holds where user_id = $1) as in_flight,
                (select coalesce(sum(cost_nano_usd), 0) from gateway.holds where user_id = $1) as held,
                (select coalesce(sum(cost_nano_usd), 0) from gateway.usage
                 where user_id = $1 and settled_at >= $2) as spent,
                (select count(*) from gateway.usage where user_id = $1) as finished
            """,
            user_id,
            model.month,
        )
        assert totals is not None
        assert totals["finished"] == len(model.usage)
        assert (totals["in_flight"], totals["held"]) == (len(model.holds), model.held_nano_usd)
        if not model.made_something:
            return
        meter = await self.clockwork.meter(user_id)
        for column in ("requests_tat_ns", "tokens_tat_ns", "tokens_returned_ns", "month", "month_nano_usd"):
            assert meter[column] == getattr(model, column), column
        assert (meter["in_flight"], meter["held_nano_usd"]) == (totals["in_flight"], totals["held"])
        assert meter["month_nano_usd"] == totals["spent"]
        if not self.edits:  # without edits and debt nothing is ever over its limit
            assert meter["month_nano_usd"] + meter["held_nano_usd"] <= model.limits.nano_usd_per_month
            assert meter["in_flight"] <= model.limits.calls_in_flight


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("edits", [False, True], ids=["limits stay", "limits are edited, calls cost more than held"])
async def test_ledger_does_what_the_model_does(database: asyncpg.Connection, seed: int, edits: bool) -> None:
    async with clockwork_of_its_own(database) as clockwork:
        simulation = await simulate(clockwork, seed, edits)
    assert any(model.usage for model in simulation.users.values()), "nothing was settled, so nothing was shown"
    if not edits:
        for model in simulation.users.values():
            assert_tokens_never_came_faster_than_the_limit(model)


async def simulate(clockwork: Clockwork, seed: int, edits: bool) -> Simulation:
    rng = random.Random(seed)
    simulation = Simulation(rng, clockwork, edits)
    for _ in range(USERS):
        limits = some_limits(rng)
        await simulation.add_user(limits if edits else TestLimits(50, limits.tokens_per_minute, 5, 1_000_000))
    for step in range(STEPS):
        try:
            await simulation.step()
        except BaseException as error:
            error.add_note(f"seed {seed}, step {step}")
            raise
    return simulation


def assert_tokens_never_came_faster_than_the_limit(model: UserModel) -> None:
    """Whatever was given back: what calls really used, counted from when they were admitted, conforms to the rate."""
    unit, limit = unit_ns(model.limits.tokens_per_minute), model.limits.tokens_per_minute
    tat_ns = 0
    finished = [(call.held_at_us, call.tokens) for call in model.usage.values()]
    running = [(call.held_at_us, call.tokens) for call in model.holds.values()]
    for held_at_us, tokens in sorted(finished + running, key=lambda call: call[0]):
        tat_ns = max(tat_ns, held_at_us * 1000) + tokens * unit
        assert tat_ns - held_at_us * 1000 <= limit * unit
