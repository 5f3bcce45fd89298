"""A process with its own ledger, to race with others or to be killed: `python -m tests.support.ledger_process URL`.

Prints "ready", reads one JSON line {"user_id", "calls", "tokens", "cost_nano_usd", "lease_s", "settle"}, makes so many
calls at once, prints one JSON line {"held": [request ids], "refused": {limit name: number}}, and then lives until its
input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import CallTooLarge, HoldRequest, LimitExceeded, Usage
from llm_gateway.limits.postgres import PostgresLedger
from tests.support.pools import pool_on


async def make_calls(ledger: PostgresLedger, order: dict[str, Any]) -> dict[str, object]:  # parsed JSON
    held: list[str] = []
    refused: Counter[str] = Counter()

    async def call() -> None:
        request = HoldRequest(
            request_id=f"req_{uuid4().hex}",
            user_id=UUID(order["user_id"]),
            model="test/model",
            tokens=order["tokens"],
            cost_nano_usd=order["cost_nano_usd"],
            lease_s=order["lease_s"],
        )
        try:
            await ledger.hold(request)
        except (LimitExceeded, CallTooLarge) as error:
            refused[error.limit_name] += 1
            return
        held.append(request.request_id)
        if order["settle"]:
            usage = Usage(counts=TokenCounts(input=1, output=1), cost_nano_usd=order["cost_nano_usd"])
            await ledger.settle(request.request_id, usage)

    await asyncio.gather(*(call() for _ in range(order["calls"])))
    return {"held": held, "refused": dict(refused)}


async def serve(database_url: str) -> None:
    async with pool_on(database_url, min_size=10) as pool:
        ledger = PostgresLedger(pool)
        _say("ready")
        order = json.loads(await asyncio.to_thread(sys.stdin.readline))
        _say(json.dumps(await make_calls(ledger, order)))
        await asyncio.to_thread(sys.stdin.read)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class LedgerProcess:
    """The other end of the pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def begin(self, user_id: UUID, **order: object) -> None:
        """The calls are on their way."""
        defaults = {"calls": 1, "tokens": 0, "cost_nano_usd": 0, "lease_s": 60.0, "settle": False}
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps({"user_id": str(user_id), **defaults, **order}) + "\n").encode())
        await self.process.stdin.drain()

    async def result(self) -> dict[str, Any]:  # parsed JSON
        """What became of them, when all of them are done."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        return dict(json.loads(line))


@asynccontextmanager
async def ledger_processes(database_url: str, number: int) -> AsyncIterator[list[LedgerProcess]]:
    """So many processes, connected and ready; none is left afterwards."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.ledger_process",
            database_url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(number)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        yield [LedgerProcess(process) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
