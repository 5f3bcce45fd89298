"""`python -m tests.faults.kills --kills 500 --seed N`: gateways, clients and the database die, and no call is lost.

Two gateways on the real stack, each with its own gate before PostgreSQL. In each round some calls are brought to one
point of their way (before the hold, hold sent, provider asked, before the first chunk, between chunks, after the last
one, before the settlement, settlement sent), others stand elsewhere, and then one of these happens: SIGKILL, SIGTERM,
clients leave, sessions are terminated, the database is cut off, falls silent, or is killed. Afterwards:

- every call that the provider worked on has exactly one usage row, settled or expired, and never a voided one;
- figures that are not flagged as estimates are the provider's own, to the token;
- no hold outlived its lease by a minute, and every meter is the sum of its holds and its usage.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from tests.faults.kills.books import Billed, Verdict, judge
from tests.faults.kills.plan import Round, draw
from tests.faults.kills.rounds import play
from tests.faults.kills.world import world_on
from tests.support.fake_provider import FakeProvider
from tests.support.stack import RunningStack, running_stack


async def survive(
    stack: RunningStack,
    provider: FakeProvider,
    rounds: Sequence[Round],
    *,
    standing_by: int = 2,
    until_s: float = float("inf"),
) -> tuple[Verdict, Billed, int]:
    """All rounds (those begun before `until_s` of the monotonic clock) were played, and the books compared."""
    billed, played = Billed(), 0
    async with world_on(stack, provider, standing_by=standing_by) as world:
        for one in rounds:
            if time.monotonic() > until_s:
                break
            await play(world, one, billed)
            played += 1
            if played % 20 == 0:
                print(f"  {played} kills, {billed.in_flight} calls under way at them", file=sys.stderr, flush=True)
        return await judge(world, billed), billed, played


def main() -> int:
    """0 when no call was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--minutes", type=float, default=60.0, help="no kill is begun after that (default 60)")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    rounds = draw(options.seed, options.kills)
    began_s = time.monotonic()
    with ExitStack() as parts:
        stack = parts.enter_context(running_stack())
        provider = parts.enter_context(FakeProvider.start())
        until_s = began_s + options.minutes * 60
        verdict, billed, played = asyncio.run(survive(stack, provider, rounds, until_s=until_s))
    kinds = Counter(one.kill for one in rounds[:played])
    print(
        f"{played} kills in {(time.monotonic() - began_s) / 60:.1f} minutes: {dict(kinds)}\n"
        f"{billed.in_flight} calls were under way at them; in {billed.reached} rounds each was where it should be\n"
        f"clients saw {dict(billed.answers)}\n"
        f"the provider worked on {verdict.billed} calls; the ledger has {verdict.states}, "
        f"{verdict.exact} of them exact; the longest that a hold outlived its lease was {verdict.overdue_s:.1f} s"
    )
    for problem in verdict.problems:
        print(problem, file=sys.stderr)
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
