"""`python -m tests.faults.simulation --steps 1000000 [--seed 1] [--store memory|postgres|both]`.

A violation ends it with a traceback that names the seed and the step. PostgreSQL is a stack of its
own, ended afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter

from tests.faults.simulation.run import simulate
from tests.support.ledger_postgres_store import postgres_store
from tests.support.ledger_stores import MemoryStore
from tests.support.stack import RunningStack, running_stack


def main() -> None:
    """The seed is printed first, and at the end what happened how often."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None, help="a run is its seed; without one it is drawn and printed")
    parser.add_argument("--store", choices=["memory", "postgres", "both"], default="memory")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.steps} steps")
    if options.store != "postgres":
        _report("memory", *asyncio.run(_in_memory(seed, options.steps)))
    if options.store != "memory":
        with running_stack() as stack:
            _report("postgres", *asyncio.run(_in_postgres(stack, seed, options.steps)))


async def _in_memory(seed: int, steps: int) -> tuple[Counter[str], float]:
    begin = time.perf_counter()
    return await simulate(MemoryStore(), seed, steps), steps / (time.perf_counter() - begin)


async def _in_postgres(stack: RunningStack, seed: int, steps: int) -> tuple[Counter[str], float]:
    async with postgres_store(stack) as store:
        begin = time.perf_counter()
        return await simulate(store, seed, steps), steps / (time.perf_counter() - begin)


def _report(store: str, counts: Counter[str], steps_a_second: float) -> None:
    print(f"{store}: every promise held after every step; {steps_a_second:.0f} steps/s")
    for what, number in sorted(counts.items()):
        print(f"  {what:<24}{number:>9}")


if __name__ == "__main__":
    main()
