"""A provider that misbehaves: what the client is told, how often it is asked, and what the call costs."""

import json
from typing import Any

import asyncpg
import pytest

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import none_held, usage_rows
from tests.support.gateway_server import PROVIDER_KEY, GatewayServer

Json = dict[str, Any]  # bodies are JSON of many shapes
ASK: Json = {"model": "fake/chat", "messages": [{"role": "user", "content": "Tell me."}]}
FOUR_KEYS = {"message", "type", "param", "code"}


# No other file calls it: a deployment that rests since somebody else's failures would be asked once only.
NEVER_RESTS = "fake/asked-again"


async def ask(gateway: GatewayServer, caller: Caller, **fields: object) -> tuple[int, Json, dict[str, str]]:
    """Status, body and headers of a call that is not streamed."""
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", json={**ASK, **fields})
    return response.status_code, response.json(), dict(response.headers)


async def stream(gateway: GatewayServer, caller: Caller, **fields: object) -> tuple[list[Json], bool]:
    """The events of a streamed call, and whether it ended with [DONE]."""
    events: list[Json] = []
    done = False
    body = {**ASK, "stream": True, **fields}
    async with gateway.http(caller) as client, client.stream("POST", "/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                events.append(json.loads(line[6:]))
    return events, done


@pytest.mark.parametrize(
    ("step", "status", "code", "should_retry"),
    [
        (Step(status=400), 400, "invalid_request", "false"),
        (Step(status=422), 422, "invalid_request", "false"),
        (Step(status=401, echoes_authorization=True), 502, "provider_refused_gateway", "false"),
        (Step(status=403), 502, "provider_refused_gateway", "false"),
        (Step(status=404), 502, "provider_model_missing", "false"),
        (Step(status=429, retry_after_s=30, times=0), 429, "provider_rate_limited", None),
        (Step(status=500, times=0), 502, "provider_error", None),
        (Step(status=503, times=0), 503, "provider_overloaded", None),
        (Step(status=529, times=0), 503, "provider_overloaded", None),
        (Step(status=307, redirect_to="/_trap", times=0), 502, "provider_error", None),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Step) else None,
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_refusal_is_told_in_our_own_words_and_costs_nothing(
    *,
    step: Step,
    status: int,
    code: str,
    should_retry: str | None,
    streamed: bool,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(step)
    got, body, headers = await ask(gateway, caller, stream=streamed)
    assert (got, body["error"]["code"]) == (status, code)
    assert set(body["error"]) == FOUR_KEYS
    assert headers.get("x-should-retry") == should_retry
    assert "x-ratelimit-remaining-requests" in headers
    shown = json.dumps([body, headers])
    assert PROVIDER_KEY not in shown
    assert fake_provider.url not in shown
    [row] = await usage_rows(database, caller, count=1)
    assert (row["state"], row["cost_nano_usd"]) == ("voided", 0)
    assert fake_provider.bill().counts.trapped == 0
    assert PROVIDER_KEY not in gateway.log_file.read_text()


async def test_a_provider_that_fails_once_is_asked_again_and_charged_once(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(status=500), Step(output_tokens=3))
    status, _, _ = await ask(gateway, caller, model=NEVER_RESTS)
    assert status == 200
    assert fake_provider.bill().counts.requests == 2
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["output_tokens"]) == ("ok", 3)


async def test_a_provider_that_keeps_failing_is_asked_twice_and_no_more(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(status=500, times=0))
    await ask(gateway, caller, model=NEVER_RESTS)
    assert fake_provider.bill().counts.requests == 2


async def test_the_retry_after_of_a_provider_reaches_the_client(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(status=429, retry_after_s=17, times=0))
    _, _, headers = await ask(gateway, caller)
    assert headers["retry-after"] == "17"
    assert fake_provider.bill().counts.requests == 1


async def test_a_rejection_names_the_field_and_the_code_that_we_know(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(status=400, error_message=f"Your key {PROVIDER_KEY} sent temperature=9"))
    status, body, _ = await ask(gateway, caller, temperature=9)
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert PROVIDER_KEY not in json.dumps(body)


async def test_a_provider_out_of_reach_costs_nothing(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    status, body, _ = await ask(gateway, caller, model="fake/unreachable")
    assert (status, body["error"]["code"]) == (502, "provider_unreachable")
    [row] = await usage_rows(database, caller, count=1)
    assert row["state"] == "voided"


async def test_a_fallback_answers_and_is_charged_at_its_own_price(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=5, input_tokens=7))
    status, _, _ = await ask(gateway, caller, model="fake/with-fallback")
    assert status == 200
    [row] = await usage_rows(database, caller, count=1)
    assert (row["model"], row["deployment"]) == ("fake/with-fallback", "fake/chat#1")
    assert row["cost_nano_usd"] == 7 * 1000 + 5 * 2000


@pytest.mark.parametrize("connection", ["reset", "close"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_connection_that_breaks_before_the_answer_is_charged_at_the_estimate_and_not_asked_again(
    *,
    connection: Any,
    streamed: bool,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(Step(connection=connection, times=0))
    status, body, headers = await ask(gateway, caller, stream=streamed, max_tokens=10)
    assert (status, body["error"]["code"]) == (502, "provider_connection_lost")
    assert headers["x-should-retry"] == "false"
    assert fake_provider.bill().counts.requests == 1
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("unknown", True)
    assert row["cost_nano_usd"] == row["held_nano_usd"] > 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_provider_that_never_answers_times_out_and_is_charged_at_the_estimate(
    streamed: bool,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(Step(connection="never_answer"))
    model = "fake/impatient" if streamed else "fake/impatient-of-length"
    status, body, _ = await ask(gateway, caller, model=model, stream=streamed)
    assert (status, body["error"]["code"]) == (504, "provider_timeout")
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("unknown", True)
    assert row["cost_nano_usd"] == row["held_nano_usd"] > 0


async def test_a_first_chunk_that_never_comes_times_out(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(hold_after_chunks=0))
    status, body, _ = await ask(gateway, caller, model="fake/impatient", stream=True)
    assert (status, body["error"]["code"]) == (504, "provider_timeout")
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["cost_nano_usd"]) == ("unknown", row["held_nano_usd"])


async def test_a_stream_that_falls_silent_ends_with_an_error_event_and_pays_for_what_came(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=50, hold_after_chunks=4))
    events, done = await stream(gateway, caller, model="fake/impatient-of-silence")
    assert not done
    assert events[-1]["error"]["code"] == "provider_timeout"
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("cut", True, 4)


@pytest.mark.parametrize("cut", ["end", "close", "reset"])
async def test_a_cut_stream_ends_with_an_error_event_and_no_false_done(
    cut: Any, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=50, cut_after_chunks=6, cut=cut))
    events, done = await stream(gateway, caller)
    assert not done
    assert set(events[-1]["error"]) == FOUR_KEYS
    assert events[-1]["error"]["code"] == "provider_stream_cut"
    assert fake_provider.bill().counts.requests == 1  # nobody is asked again once something was answered
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("cut", True)
    # a reset may destroy what was on its way; more than was sent is never charged
    assert row["output_tokens"] == 6 or cut == "reset"
    assert row["output_tokens"] <= 6
    assert row["cost_nano_usd"] > 0


async def test_an_error_within_a_stream_is_told_in_our_own_words(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=50, error_after_chunks=3, error_message=f"bad key {PROVIDER_KEY}"))
    events, done = await stream(gateway, caller)
    assert not done
    assert events[-1]["error"]["code"] == "provider_stream_failed"
    assert PROVIDER_KEY not in json.dumps(events)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["output_tokens"]) == ("cut", 3)


@pytest.mark.parametrize(
    "step",
    [
        Step(body="malformed_json"),
        Step(body="half_json"),
        Step(body="cut_json"),
        Step(body="wrong_content_type"),
        Step(body="empty"),
        Step(body="empty_choices"),
    ],
    ids=lambda step: step.body,
)
async def test_an_answer_that_cannot_be_read_is_a_502_and_charged_at_the_estimate(
    step: Step, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(step)
    status, body, _ = await ask(gateway, caller)
    assert status == 502
    assert set(body["error"]) == FOUR_KEYS
    [row] = await usage_rows(database, caller, count=1)
    assert (row["state"], row["estimated"]) == ("settled", True)
    assert row["cost_nano_usd"] == row["held_nano_usd"] > 0


@pytest.mark.parametrize("usage", ["missing", "null"])
async def test_an_answer_without_usage_passes_and_is_charged_by_its_text(
    usage: Any, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=40, usage=usage))
    status, body, headers = await ask(gateway, caller)
    assert status == 200
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("ok", True)
    assert row["output_tokens"] == -(-len(body["choices"][0]["message"]["content"]) // 3)
    assert float(headers["x-buttress-cost-usd"]) * 1e9 == pytest.approx(row["cost_nano_usd"])


@pytest.mark.parametrize("usage", ["missing", "null"])
async def test_a_stream_without_usage_is_charged_by_its_chunks(
    usage: Any, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=40, usage=usage))
    _, done = await stream(gateway, caller)
    assert done
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("ok", True, 40)


async def test_a_stream_without_done_is_complete_when_its_answer_is(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=4, done_events=0))
    events, _ = await stream(gateway, caller)
    assert "error" not in events[-1]
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["output_tokens"]) == ("ok", False, 4)


async def test_an_endless_stream_is_cut_at_what_was_held(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(endless=True, ignores_max_tokens=True))
    events, done = await stream(gateway, caller, max_tokens=30)
    assert not done
    assert events[-1]["error"]["code"] == "output_limit_reached"
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    assert row["outcome"] == "cut"
    assert row["output_tokens"] == 30
    assert row["cost_nano_usd"] <= row["held_nano_usd"]
    await none_held(database, caller)


async def test_an_endless_stream_is_cut_at_its_deadline(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(endless=True, delay_between_chunks_s=0.1))
    events, done = await stream(gateway, caller, model="fake/impatient-of-length")
    assert not done
    assert events[-1]["error"]["code"] == "provider_timeout"
    await fake_provider.wait_for(client_gone=1)


async def test_a_stream_of_huge_chunks_is_cut(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=64, padding_bytes=1 << 20))
    events, done = await stream(gateway, caller, max_tokens=64)
    assert not done
    assert events[-1]["error"]["code"] == "output_limit_reached"
