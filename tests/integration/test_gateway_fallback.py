"""A dearer fallback: held for before it is asked, skipped by whoever cannot afford it, never a way past a budget."""

import asyncio
import json

import asyncpg
import pytest

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import none_held, set_limits, usage_rows
from tests.support.gateway_server import GatewayServer

ASK = {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 100}
# The first deployment's price bounds the prompt of about two hundred bytes at a third of a thousandth of a dollar.
ENOUGH_FOR_THE_CHEAP_NANO_USD, ENOUGH_FOR_THE_DEAR_NANO_USD = 1_000_000, 100_000_000


async def test_a_dearer_fallback_is_held_for_and_charged_at_its_price(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, nano_usd_per_month=ENOUGH_FOR_THE_DEAR_NANO_USD)
    fake_provider.script(Step(output_tokens=10))
    async with gateway.http(caller) as client:
        answer = await client.post("/chat/completions", json={"model": "fake/with-dear-fallback", **ASK})
    assert answer.status_code == 200
    bill = fake_provider.bill()
    [row] = await usage_rows(database, caller, count=1)
    assert row["deployment"] == "fake/dear#1"
    assert row["cost_nano_usd"] == bill.input_tokens * 100_000 + 10 * 200_000
    assert row["held_nano_usd"] >= 100 * 200_000


async def test_who_cannot_afford_the_dearer_one_is_answered_by_the_next(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, nano_usd_per_month=ENOUGH_FOR_THE_CHEAP_NANO_USD)
    async with gateway.http(caller) as client:
        answer = await client.post("/chat/completions", json={"model": "fake/with-dear-fallback", **ASK})
    assert answer.status_code == 200
    [row] = await usage_rows(database, caller, count=1)
    assert row["deployment"] == "fake/o-series#1"
    assert row["held_nano_usd"] <= ENOUGH_FOR_THE_CHEAP_NANO_USD


async def test_who_can_afford_nobody_that_is_left_is_told_so_and_pays_nothing(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, nano_usd_per_month=ENOUGH_FOR_THE_CHEAP_NANO_USD)
    async with gateway.http(caller) as client:
        answer = await client.post("/chat/completions", json={"model": "fake/with-only-a-dear-fallback", **ASK})
        listed = [name for name, _ in answer.headers.multi_items()]
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "call_exceeds_limit"
    assert answer.headers["x-should-retry"] == "false"
    assert listed.count("x-ratelimit-remaining-requests") <= 1
    [row] = await usage_rows(database, caller, count=1)
    assert (row["state"], row["cost_nano_usd"]) == ("voided", 0)
    await none_held(database, caller)
    assert fake_provider.bill().counts.requests == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_who_lost_their_hold_on_the_way_to_a_dearer_one_is_told_so_and_charged_once(
    *,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
    stream: bool,
) -> None:
    """The lease runs out while the first deployment thinks, and the reaper, any process's, takes the hold."""
    fake_provider.script(Step(hold_before_headers=True, status=503))
    async with gateway.http(caller) as client:
        body = {**ASK, "model": "fake/chat-or-dear", "stream": stream}
        asking = asyncio.create_task(client.post("/chat/completions", json=body))
        try:
            await fake_provider.wait_for(held=1)
            await database.execute(
                "update gateway.holds set lease_expires_at = now() where user_id = $1", caller.user_id
            )
            await gateway.ready()  # which reaps
            await none_held(database, caller)
        finally:
            fake_provider.release()
        answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "hold_lost")
    assert answer.headers["x-should-retry"] == "false"  # it was charged
    assert [json.loads(seen.body)["model"] for seen in fake_provider.requests()] == ["cheap"]
    [row] = await usage_rows(database, caller, count=1)
    assert row["state"] == "expired"
    assert row["cost_nano_usd"] == row["held_nano_usd"] > 0
    assert len([line for line in gateway.log_lines("llm_call") if line["error_code"] == "hold_lost"]) >= 1


async def test_what_is_left_of_a_budget_decides_whether_a_dearer_one_is_asked(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    """The dear one fits the budget, and once it was used the rest does not: it is not asked, and nothing is charged."""
    await set_limits(database, caller, nano_usd_per_month=50_000_000)
    fake_provider.script(Step(output_tokens=100))
    asked = {"model": "fake/with-only-a-dear-fallback", **ASK}
    async with gateway.http(caller) as client:
        assert (await client.post("/chat/completions", json=asked)).status_code == 200
        refused = await client.post("/chat/completions", json=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    first, second = await usage_rows(database, caller, count=2)
    assert first["held_nano_usd"] <= 50_000_000 < first["cost_nano_usd"] + first["held_nano_usd"]
    assert (second["state"], second["cost_nano_usd"]) == ("voided", 0)
    await none_held(database, caller)
    assert fake_provider.bill().counts.requests == 1


async def test_a_deployment_that_was_busy_hands_over_to_a_dearer_one_only_within_the_budget(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, nano_usd_per_month=ENOUGH_FOR_THE_CHEAP_NANO_USD)
    fake_provider.script(Step(status=429, times=3))
    async with gateway.http(caller) as client:
        refused = await client.post("/chat/completions", json={"model": "fake/busy", **ASK})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "call_exceeds_limit")
    [row] = await usage_rows(database, caller, count=1)
    assert (row["state"], row["cost_nano_usd"]) == ("voided", 0)
    assert {line.model for line in fake_provider.bill().lines} == {"busy"}
    await none_held(database, caller)
