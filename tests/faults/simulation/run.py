"""A run of the simulation: so many steps from one seed."""

from __future__ import annotations

from collections import Counter

from tests.faults.simulation.processes import Processes
from tests.faults.simulation.world import World
from tests.support.ledger_stores import Store


async def simulate(store: Store, seed: int, steps: int, *, oracle: bool = True) -> Counter[str]:
    """Every promise held after each step; returns how often what was answered. Without `oracle` as in World.

    Raises: Violation, or whatever the store raises, with what replays it in a note.
    """
    world = World(store, seed, oracle=oracle)
    await world.begin()
    processes = Processes(world)
    step = 0
    try:
        while step < steps:
            step += 1
            await processes.step()
        world.checks.after_edit(world.draw.subjects)
    except BaseException as error:
        error.add_note(f"after {step} steps from seed {seed}: --seed {seed} --steps {step} replays it. Last:")
        error.add_note(world.last())
        raise
    return world.counts
