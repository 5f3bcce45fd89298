"""The simulation of the ledger: short runs here, long ones by `python -m tests.faults.simulation --steps 1000000`."""

from __future__ import annotations

import pytest

from llm_gateway.limits.memory import MemoryLedger
from tests.faults.simulation.checks import Violation
from tests.faults.simulation.run import simulate
from tests.faults.simulation.wrong import WRONG, EditsForget, GivesBackTwice
from tests.support.ledger_postgres_store import PostgresStore
from tests.support.ledger_stores import MemoryStore
from tests.support.untraced import untraced

pytestmark = pytest.mark.time_limit(200)  # half a minute alone

MEMORY_SEEDS = range(1, 5)
MEMORY_STEPS = 25_000  # for each seed: 100,000 together
POSTGRES_SEEDS = range(1, 3)
POSTGRES_STEPS = 4_000  # for each seed: 8,000 together
EVERYTHING_THAT_HAPPENS = {
    "cut off",
    "edit",
    "hold: duplicate",
    "hold: held",
    "hold: refused",
    "hold: too_large",
    "reap: 0",
    "reap: 1",
    "renew: False",
    "renew: True",
    "reprice: held",
    "reprice: lost",
    "reprice: refused",
    "reprice: too_large",
    "settle: expired",
    "settle: settled",
    "settle: unknown",
    "settle: voided",
    "together: duplicate",
    "together: held",
    "together: refused",
    "together: settled",
    "void: expired",
    "void: settled",
    "void: unknown",
    "void: voided",
}


@pytest.mark.parametrize("seed", MEMORY_SEEDS)
async def test_every_promise_holds_after_every_step_in_memory(seed: int) -> None:
    with untraced():
        counts = await simulate(MemoryStore(), seed, MEMORY_STEPS)
    assert counts.keys() >= EVERYTHING_THAT_HAPPENS, "a run in which something never happens shows nothing about it"


@pytest.mark.parametrize("seed", POSTGRES_SEEDS)
async def test_every_promise_holds_after_every_step_in_postgresql(ledger_database: PostgresStore, seed: int) -> None:
    await ledger_database.clear()
    counts = await simulate(ledger_database, seed, POSTGRES_STEPS)
    assert counts.keys() >= EVERYTHING_THAT_HAPPENS - {"reprice: refused", "settle: voided"}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_ledger_that_is_wrong_is_found_out(wrong: type[MemoryLedger], seed: int) -> None:
    with pytest.raises(Violation):
        await simulate(MemoryStore(wrong), seed, 2000)


@pytest.mark.parametrize("wrong", [ledger for ledger in WRONG if ledger not in {GivesBackTwice, EditsForget}])
async def test_most_wrongs_are_found_by_the_promises_alone(wrong: type[MemoryLedger]) -> None:
    """Without a model to compare with, so that no mistake that model and ledger share could hide."""
    with pytest.raises(Violation):
        await simulate(MemoryStore(wrong), 2, 6000, oracle=False)


async def test_a_violation_says_what_replays_it() -> None:
    with pytest.raises(Violation) as first:
        await simulate(MemoryStore(WRONG[0]), 2, 2000)
    [how, last] = first.value.__notes__
    steps = int(how.split()[1])
    assert f"--seed 2 --steps {steps} replays it" in how
    with pytest.raises(Violation) as again:
        await simulate(MemoryStore(WRONG[0]), 2, steps)
    assert (str(again.value), again.value.__notes__[1]) == (str(first.value), last)
