"""`python -m tests.faults.overspend`: very many calls from very many clients against five nested limits, to the cent.

One workspace, its people, their API keys; a budget in money for the workspace's month, each person's month and day and
each key's month, and one in tokens for each key's day. They are tight: each kind refuses some of the calls. Clients of
several processes share two gateway processes and never pause. Afterwards, and at every sample taken meanwhile:

- no budget was passed by as much as a nano-dollar or a token, what is held counted as spent;
- the ledger's usage is the provider's own bill: as many calls, as many tokens;
- no client was answered anything but 200, 429, or 503 where more came at once than the machine could serve within the
  ledger's deadline; and nothing is held any more.
"""

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import orjson

from tests.load.generator import Job, Outcome
from tests.load.measure import http_request, run_generator
from tests.support.api_keys import Key, new_key
from tests.support.callers import join, new_caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_ledger import OUT_OF_REACH, limit_subject
from tests.support.gateway_server import INPUT_NANO_USD, OUTPUT_NANO_USD, GatewayServer, gateway_on
from tests.support.pools import AS_IN_SERVICE_S
from tests.support.stack import RunningStack, running_stack

MODEL = "fake/chat"
_BODY = orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Say something."}], "max_tokens": 32})
_SAMPLE_EVERY_S = 0.05
_HELD = "select count(*) from gateway.holds where workspace_id = $1"
_OVER_A_LIMIT = """
    select scope, subject_id, month_nano_usd + meters.held_nano_usd as month,
        day_nano_usd + meters.held_nano_usd as day, day_tokens + held_tokens as tokens
    from gateway.meters as meters
    inner join gateway.limits as limits using (scope, subject_id)
    where month_nano_usd + meters.held_nano_usd > limits.nano_usd_per_month
        or day_nano_usd + meters.held_nano_usd > limits.nano_usd_per_day
        or day_tokens + held_tokens > limits.tokens_per_day
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is asked: `calls` altogether, by `processes` times `clients` clients, of `gateways` processes."""

    calls: int = 100_000
    processes: int = 8
    clients: int = 64
    gateways: int = 2
    people: int = 8
    keys_each: int = 2

    @property
    def calls_a_client(self) -> int:
        """Rounded up, so that there are at least as many calls as asked for."""
        return -(-self.calls // (self.processes * self.clients))

    @property
    def calls_a_key(self) -> int:
        """Every key is used equally often."""
        return self.calls // (self.people * self.keys_each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of it. `over` are samples in which some limit was passed; `ledger` and `provider`: calls, tokens."""

    statuses: dict[str, int]
    samples: int
    over: list[str]
    ledger: tuple[int, int]
    provider: tuple[int, int]
    left_held: int
    spent_share: float
    examples: list[str]

    @property
    def problems(self) -> list[str]:
        """A sentence for everything that should not be."""
        found = [f"a limit was passed: {one}" for one in self.over]
        if self.ledger != self.provider:
            found.append(f"the ledger has {self.ledger} (calls, tokens), the provider's bill {self.provider}")
        if strange := self.statuses.keys() - {"200", "429", "503"}:
            found.append(f"answers other than 200, 429 and 503: {sorted(strange)}; {self.examples}")
        if not self.statuses.get("429"):
            found.append("no limit ever refused anything, so nothing was tested")
        if self.left_held:
            found.append(f"{self.left_held} calls are still held")
        return found


async def overspend(
    stack: RunningStack, provider: FakeProvider, gateways: Sequence[GatewayServer], extent: Extent, seed: int
) -> Verdict:
    """All calls were made and the books compared. The provider's bill must begin empty."""
    database = await asyncpg.connect(stack.database_url)
    try:
        keys, workspace_id, budget = await _people(stack, database, extent, random.Random(seed))
        sampling = asyncio.create_task(_sample(stack.database_url))
        outcomes = await _load(keys, gateways, extent, seed)

        async def nothing_is_held() -> bool:
            return not await database.fetchval(_HELD, workspace_id)

        with suppress(AssertionError):  # the verdict says how many there are
            await eventually(nothing_is_held, timeout_s=30)
        sampling.cancel()
        return await _verdict(database, provider, (workspace_id, budget), outcomes, await sampling)
    finally:
        await database.close()


async def _people(
    stack: RunningStack, database: asyncpg.Connection, extent: Extent, chance: random.Random
) -> tuple[list[Key], UUID, int]:
    """The keys, their workspace, and its budget."""
    people = [await new_caller(stack, database) for _ in range(extent.people)]
    workspace_id = await database.fetchval(
        "insert into api.workspaces (name, created_by) values ('Spenders', $1) returning id", people[0].user_id
    )
    keys = []
    call_nano_usd = 20 * INPUT_NANO_USD + 16 * OUTPUT_NANO_USD  # about; what is tight follows from the shares
    key_nano_usd = extent.calls_a_key * call_nano_usd
    for person in people:
        await join(database, workspace_id, person, "owner" if person is people[0] else "member")
        for _ in range(extent.keys_each):
            key = await new_key(stack, database, person, workspace_id=workspace_id)
            keys.append(key)
            own = {
                "nano_usd_per_month": int(key_nano_usd * chance.uniform(0.3, 1.2)),
                "tokens_per_day": int(extent.calls_a_key * 36 * chance.uniform(0.3, 1.2)),
            }
            await limit_subject(database, "key", key.id, **{**OUT_OF_REACH, **own})
        mine = key_nano_usd * extent.keys_each
        own = {
            "nano_usd_per_month": int(mine * chance.uniform(0.3, 1.0)),
            "nano_usd_per_day": int(mine * chance.uniform(0.3, 1.0)),
        }
        await limit_subject(database, "user", person.user_id, **{**OUT_OF_REACH, **own})
    budget = int(key_nano_usd * len(keys) * 0.45)
    await limit_subject(database, "workspace", workspace_id, **{**OUT_OF_REACH, "nano_usd_per_month": budget})
    return keys, workspace_id, budget


async def _load(keys: list[Key], gateways: Sequence[GatewayServer], extent: Extent, seed: int) -> list[Outcome]:
    jobs = []
    for number in range(extent.processes):
        url = urlsplit(gateways[number % len(gateways)].url)
        mixed = random.Random(seed + number).sample(keys, len(keys))
        requests = tuple(
            http_request("POST", "/llm/v1/chat/completions", url.netloc, key.headers, _BODY) for key in mixed
        )
        jobs.append(
            Job(
                host=url.hostname or "",
                port=url.port or 80,
                clients=extent.clients,
                requests=requests,
                seconds=3600.0,
                requests_per_client=extent.calls_a_client,
            )
        )
    return list(await asyncio.gather(*(run_generator(job) for job in jobs)))


async def _sample(dsn: str) -> tuple[list[str], int]:
    """Looks for passed limits until cancelled; what it saw, and how often it looked."""
    database = await asyncpg.connect(dsn)
    over: list[str] = []
    samples = 0
    try:
        while True:
            over += [repr(dict(row)) for row in await database.fetch(_OVER_A_LIMIT)]
            samples += 1
            await asyncio.sleep(_SAMPLE_EVERY_S)
    except asyncio.CancelledError:
        over += [repr(dict(row)) for row in await database.fetch(_OVER_A_LIMIT)]
        return over[:5], samples + 1
    finally:
        await database.close()


async def _verdict(
    database: asyncpg.Connection,
    provider: FakeProvider,
    workspace: tuple[UUID, int],
    outcomes: list[Outcome],
    sampled: tuple[list[str], int],
) -> Verdict:
    workspace_id, budget = workspace
    row = await database.fetchrow(
        """
        select count(*) as calls, coalesce(sum(cost_nano_usd), 0)::bigint as cost,
            coalesce(sum(input_tokens + cached_input_tokens + output_tokens), 0)::bigint as tokens
        from gateway.usage where workspace_id = $1 and state = 'settled'
        """,
        workspace_id,
    )
    assert row is not None
    bill = provider.bill()
    statuses: Counter[str] = Counter()
    for outcome in outcomes:
        statuses.update(outcome.statuses)
    return Verdict(
        statuses=dict(statuses),
        samples=sampled[1],
        over=sampled[0],
        ledger=(row["calls"], row["tokens"]),
        provider=(bill.counts.closed, bill.input_tokens + bill.output_tokens),
        left_held=await database.fetchval(_HELD, workspace_id),
        spent_share=row["cost"] / budget,
        examples=[example for outcome in outcomes for example in outcome.examples if " 429 " not in example][:3],
    )


def main() -> int:
    """0 when nothing was overspent and the books agree."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.overspend", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--clients", type=int, default=64, help="a process (default 64)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    extent = Extent(calls=options.calls, processes=options.processes, clients=options.clients)
    print(f"seed {options.seed}", flush=True)
    with ExitStack() as parts:
        stack = parts.enter_context(running_stack())
        provider = parts.enter_context(FakeProvider.start(keep=10))
        gateways = [
            parts.enter_context(
                gateway_on(stack, provider, name=f"gateway-{number}", database_deadline_s=AS_IN_SERVICE_S)
            )
            for number in range(extent.gateways)
        ]
        verdict = asyncio.run(overspend(stack, provider, gateways, extent, options.seed))
    print(
        f"{sum(verdict.statuses.values()):,} answers {verdict.statuses}; {verdict.samples:,} samples of every limit; "
        f"ledger {verdict.ledger}, provider {verdict.provider} (calls, tokens); "
        f"{verdict.spent_share:.4%} of the workspace's budget spent"
    )
    for problem in verdict.problems:
        print(problem, file=sys.stderr)
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
