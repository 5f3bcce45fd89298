"""What the gateway tells of its calls: figures that add up over all workers, spans with agreed names, no content."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.callers import Caller
from tests.support.eventually import eventually
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import set_limits
from tests.support.gateway_server import GatewayServer, gateway_on
from tests.support.native_models import NATIVE_MODELS_TOML
from tests.support.otlp_collector import Collector, attributes_of, running_collector
from tests.support.stack import RunningStack

TOKEN = "prometheus-reads-with-this"
CANARY = "canary-content-77ab"
ASK: dict[str, object] = {"model": "fake/chat", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 20}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


@pytest.fixture(scope="module")
def server(stack: RunningStack, fake_provider: FakeProvider, collector: Collector) -> Iterator[GatewayServer]:
    environment = {
        "BUTTRESS_GATEWAY_WORKERS": "2",
        "BUTTRESS_METRICS_TOKEN": TOKEN,
        "BUTTRESS_OTEL": "on",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    with gateway_on(
        stack, fake_provider, name="gateway-telemetry", models_toml=NATIVE_MODELS_TOML, extra_environment=environment
    ) as running:
        yield running


async def figures(server: GatewayServer) -> dict[str, float]:
    """Every sample: `name{a=x,b=y}`, labels in alphabetical order."""
    async with httpx.AsyncClient(timeout=30) as client:
        response = await client.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert CANARY not in response.text
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def test_the_figures_of_all_workers_add_up_to_the_calls_there_were(
    server: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    before = await figures(server)
    fake_provider.script(Step(input_tokens=30, output_tokens=5, times=0))
    for number in range(12):  # a connection each, so that both workers get some
        async with server.http(caller) as client:
            answer = await client.post("/chat/completions", json={**ASK, "stream": number % 2 == 0})
            assert answer.status_code == 200
    fake_provider.reset()
    fake_provider.script(Step(status=400, times=1))
    async with server.http(caller) as client:
        assert (await client.post("/chat/completions", json=ASK)).status_code == 400
        await set_limits(database, caller, requests_per_minute=1)
        assert (await client.post("/chat/completions", json=ASK)).status_code == 429
        await client.post("/chat/completions", json={**ASK, "model": "made/up"})

    call = "endpoint=chat,model=fake/chat"
    expected = {
        f"buttress_llm_requests_total{{{call},status=2xx}}": 12,
        f"buttress_llm_requests_total{{{call},status=4xx}}": 2,
        "buttress_llm_requests_total{endpoint=chat,model=other,status=4xx}": 1,
        f"buttress_llm_request_duration_seconds_count{{{call}}}": 13,
        f"buttress_llm_time_to_first_token_seconds_count{{{call}}}": 6,
        f"buttress_llm_overhead_seconds_count{{{call}}}": 7,
        f"buttress_llm_tokens_total{{class=input,{call}}}": 360,
        f"buttress_llm_tokens_total{{class=output,{call}}}": 60,
        f"buttress_llm_cost_nano_usd_total{{{call}}}": 360 * 1000 + 60 * 2000,
        "buttress_llm_provider_errors_total{deployment=fake/chat#1,kind=rejected}": 1,
        "buttress_llm_refusals_total{limit=requests_per_minute,scope=user}": 1,
    }

    async def they_add_up() -> bool:
        after = await figures(server)
        return {name: after.get(name, 0) - before.get(name, 0) for name in expected} == expected

    await eventually(they_add_up)
    after = await figures(server)
    assert after["buttress_llm_ledger_up{}"] == 1
    assert "buttress_llm_held_nano_usd{}" in after

    async def nothing_is_in_flight() -> bool:
        return (await figures(server))["buttress_llm_calls_in_flight{}"] == 0

    # what the other worker is busy with is told every five seconds
    await eventually(nothing_is_in_flight, timeout_s=30)


async def test_a_call_is_a_span_with_the_agreed_names_below_the_clients_own(
    server: GatewayServer, caller: Caller, collector: Collector, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text=f"{CANARY} too", input_tokens=30, cached_input_tokens=10, output_tokens=None))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with server.http(caller) as client:
        client.headers["traceparent"] = f"00-{trace_id}-b7ad6b7169203331-01"
        answer = await client.post("/chat/completions", json={**ASK, "stream": True})
    call_id = answer.headers["x-buttress-call-id"]

    async def it_arrived() -> bool:
        return any(span.trace_id.hex() == trace_id for span in collector.spans())

    await eventually(it_arrived)
    [span] = [span for span in collector.spans() if span.trace_id.hex() == trace_id]
    attributes = attributes_of(span.attributes)
    assert span.name == "chat fake/chat"
    assert span.parent_span_id.hex() == "b7ad6b7169203331"
    assert span.end_time_unix_nano > span.start_time_unix_nano
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "openai-compatible"
    assert attributes["gen_ai.request.model"] == "fake/chat"
    assert attributes["gen_ai.response.model"] == "scripted"
    assert attributes["gen_ai.usage.input_tokens"] == 30
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 10
    assert attributes["buttress.call_id"] == call_id
    assert "error.type" not in attributes


async def test_a_failed_call_says_how_it_failed(
    server: GatewayServer, caller: Caller, collector: Collector, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(status=500, times=0))
    trace_id = "1bf7651916cd43dd8448eb211c80319c"
    async with server.http(caller) as client:
        client.headers["traceparent"] = f"00-{trace_id}-b7ad6b7169203331-01"
        assert (await client.post("/chat/completions", json=ASK)).status_code == 502

    async def it_arrived() -> bool:
        return any(span.trace_id.hex() == trace_id for span in collector.spans())

    await eventually(it_arrived)
    [span] = [span for span in collector.spans() if span.trace_id.hex() == trace_id]
    assert attributes_of(span.attributes)["error.type"] == "provider_error"
    assert span.status.code == 2


async def test_figures_are_told_too_and_nothing_that_was_said_is(
    server: GatewayServer, caller: Caller, collector: Collector, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(echo_prompt=True))
    async with server.http(caller) as client:
        answer = await client.post("/chat/completions", json={**ASK, "stream": True})
        assert CANARY in answer.text

    names = (
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.client.operation.time_to_first_chunk",
    )

    async def they_arrived() -> bool:
        kinds = {attributes_of(point.attributes)["gen_ai.token.type"] for point in collector.points(names[1])}
        return all(collector.points(name) for name in names) and kinds == {"input", "output"}

    await eventually(they_arrived)

    async def counted_too() -> bool:
        used = [
            collector.counted(f"gen_ai.client.inference.usage.{name}") for name in ("input_tokens", "output_tokens")
        ]
        return all(points and max(point.as_int for point in points) > 0 for points in used)

    await eventually(counted_too)
    assert CANARY.encode() not in collector.everything()
    assert caller.access_token.encode() not in collector.everything()
