"""Anthropic's official client is the judge: messages, streams, tools, thoughts, structured answers, errors, counts."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import anthropic
import asyncpg
import pytest
from anthropic import Anthropic
from anthropic._constants import ANTHROPIC_API_VERSION

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step, ToolCall
from tests.support.gateway_ledger import set_limits, usage_rows
from tests.support.gateway_server import PROVIDER_KEY, GatewayServer

MODEL = "fake/claude"
ASK: Any = [{"role": "user", "content": "What is the weather in Basel?"}]  # the SDK's own message types are unions
WEATHER: Any = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CACHE_WRITTEN = Path("tests/contract/traces/anthropic_messages_thinking_and_tools.sse").read_text()
PICTURE = base64.b64encode(b"\x89PNG\r\n").decode()


async def test_a_message_is_answered_and_charged_to_the_token(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text="It is sunny in Basel.", cached_input_tokens=2))
    async with gateway.anthropic(caller) as client:
        raw = await client.messages.with_raw_response.create(model=MODEL, max_tokens=64, messages=ASK)
    answer: Any = await raw.parse()
    assert answer.content[0].text == "It is sunny in Basel."
    assert answer.stop_reason == "end_turn"
    bill = fake_provider.bill()
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"], row["endpoint"]) == ("ok", False, "messages")
    cost = (bill.input_tokens - 2) * 1000 + 2 * 100 + bill.output_tokens * 2000
    assert row["cost_nano_usd"] == cost
    assert float(raw.headers["x-buttress-cost-usd"]) == pytest.approx(cost / 1e9)
    assert float(raw.headers["x-buttress-overhead-ms"]) > 0
    assert raw.headers["request-id"] == raw.headers["x-request-id"] == answer._request_id


async def test_the_synchronous_client_works_too(gateway: GatewayServer, caller: Caller) -> None:
    def ask() -> tuple[str, str]:
        with Anthropic(base_url=f"{gateway.url}/llm", auth_token=caller.access_token, max_retries=0) as client:
            whole: Any = client.messages.create(model=MODEL, max_tokens=64, messages=ASK)
            with client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
                streamed = stream.get_final_text()
        return whole.content[0].text, streamed

    whole, streamed = await asyncio.to_thread(ask)
    assert whole == streamed


async def test_a_stream_comes_in_chunks_and_is_charged_exactly(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=12, reasoning_text="Let me think first."))
    async with (
        gateway.anthropic(caller) as client,
        client.messages.stream(
            model=MODEL, max_tokens=64, messages=ASK, thinking={"type": "enabled", "budget_tokens": 1024}
        ) as stream,
    ):
        words = [text async for text in stream.text_stream]
        final: Any = await stream.get_final_message()
    assert len(words) == 12
    assert (final.content[0].type, final.content[0].thinking) == ("thinking", "Let me think first.")
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 12 + 4)
    bill = fake_provider.bill()
    [row] = await usage_rows(database, caller, count=1)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (bill.input_tokens, 16, False)


async def test_the_bytes_of_a_stream_are_the_providers_own(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    body = {"model": MODEL, "max_tokens": 9, "stream": True, "messages": ASK}
    fake_provider.script(Step(text="Grüße, 世界!", keep_alive_comments=True, split_bytes=7))
    fake_provider.script(Step(text="Grüße, 世界!", keep_alive_comments=True))
    async with gateway.http(caller) as client:
        answer = await client.post("/messages", json=body)
        direct = await client.post(f"{fake_provider.url}/v1/messages", json={**body, "model": "claude-scripted"})
    own, passed = (_without_ids(one.content) for one in (direct, answer))
    assert passed == own
    assert b"event: ping" in passed


async def test_tools_are_called(gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider) -> None:
    fake_provider.script(Step(tool_calls=(ToolCall(name="get_weather", arguments='{"city": "Basel"}'),), times=2))
    async with gateway.anthropic(caller) as client:
        answer: Any = await client.messages.create(model=MODEL, max_tokens=64, messages=ASK, tools=[WEATHER])
        async with client.messages.stream(model=MODEL, max_tokens=64, messages=ASK, tools=[WEATHER]) as stream:
            streamed: Any = await stream.get_final_message()
        [call] = answer.content
        assert (call.name, call.input) == ("get_weather", {"city": "Basel"})
        assert (streamed.content[0].input, streamed.stop_reason) == ({"city": "Basel"}, "tool_use")
        fake_provider.script(Step(text="Sunny."))
        told: Any = [
            *ASK,
            {"role": "assistant", "content": [call.model_dump()]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
        ]
        last: Any = await client.messages.create(model=MODEL, max_tokens=64, messages=told, tools=[WEATHER])
    assert last.content[0].text == "Sunny."


async def test_a_structured_answer_passes(gateway: GatewayServer, caller: Caller) -> None:
    schema = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
    config: Any = {"format": {"type": "json_schema", "schema": schema}}
    async with gateway.anthropic(caller) as client:
        answer: Any = await client.messages.create(model=MODEL, max_tokens=64, messages=ASK, output_config=config)
    assert "sunny" in json.loads(answer.content[0].text)


async def test_what_the_client_sends_reaches_the_provider_and_its_token_does_not(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    blocks: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
        {"type": "image", "source": {"type": "url", "url": "https://pictures.example/a.png"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Notes."}},
    ]
    async with gateway.anthropic(caller) as client:
        await client.beta.messages.create(
            model=MODEL,
            max_tokens=10**6,
            messages=[{"role": "user", "content": blocks}],
            system="Be brief.",
            stop_sequences=["\n"],
            metadata={"user_id": "u-1"},
            betas=["interleaved-thinking-2025-05-14", "mcp-client-2025-11-20"],
        )
    [seen] = fake_provider.requests()
    assert json.loads(seen.body) == {
        "model": "claude-scripted",
        "max_tokens": 256,
        "messages": [{"role": "user", "content": blocks}],
        "system": "Be brief.",
        "stop_sequences": ["\n"],
        "metadata": {"user_id": "u-1"},
    }
    assert seen.headers["x-api-key"] == PROVIDER_KEY
    assert seen.headers["anthropic-version"] == ANTHROPIC_API_VERSION
    assert seen.headers["anthropic-beta"] == "interleaved-thinking-2025-05-14"
    assert caller.access_token not in json.dumps(seen.headers)


async def test_writing_the_cache_is_held_for_and_charged_at_its_own_price(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    mark: Any = {"type": "ephemeral"}
    fake_provider.script(Step(sse=CACHE_WRITTEN))
    async with gateway.anthropic(caller) as client:
        stream = await client.messages.create(
            model=MODEL, max_tokens=100, messages=ASK, cache_control=mark, stream=True, tools=[WEATHER]
        )
        _ = [event async for event in stream]
        with pytest.raises(anthropic.BadRequestError, match=r"cache_control: .* has no price"):
            await client.messages.create(model="fake/chat", max_tokens=100, messages=ASK, cache_control=mark)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["cost_nano_usd"], row["estimated"]) == (25 * 1000 + 2048 * 1250 + 96 * 2000, False)
    async with gateway.anthropic(caller) as client:
        await client.messages.create(model=MODEL, max_tokens=100, messages=ASK, tools=[WEATHER])
    plain = (await usage_rows(database, caller, count=2))[-1]
    held_prompt, plain_prompt = (one["held_nano_usd"] - 100 * 2000 for one in (row, plain))
    assert held_prompt / plain_prompt == pytest.approx(1.25, rel=0.05)


async def test_tokens_are_counted_by_the_provider_and_cost_nothing(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(input_tokens=42))
    async with gateway.anthropic(caller) as client:
        raw = await client.messages.with_raw_response.count_tokens(model=MODEL, messages=ASK, system="Be brief.")
    assert (await raw.parse()).input_tokens == 42
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "59"
    [row] = await usage_rows(database, caller, count=1)
    assert row["endpoint"] == "count_tokens"
    assert row["cost_nano_usd"] == row["held_nano_usd"] == row["held_tokens"] == 0


async def test_tokens_that_nobody_else_counts_are_bounded_here(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    async with gateway.anthropic(caller) as client:
        short = await client.messages.count_tokens(model="fake/chat", messages=ASK)
        long = await client.messages.count_tokens(
            model="fake/chat", messages=[{"role": "user", "content": "word " * 9_000}]
        )
    assert len(ASK[0]["content"]) < short.input_tokens < 300
    assert long.input_tokens > 9_000  # also beyond the model's own context
    assert fake_provider.bill().counts.requests == 0


async def test_models_are_listed_for_it(gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.anthropic(caller) as client:
        names = [model.id async for model in client.models.list()]
        one = await client.models.retrieve(MODEL)
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("no/such")
    assert MODEL in names
    assert (one.id, one.type) == (MODEL, "model")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step(status=400), anthropic.BadRequestError),
        (Step(status=413), anthropic.APIStatusError),
        (Step(status=429, retry_after_s=9, times=0), anthropic.RateLimitError),
        (Step(status=500, times=0), anthropic.InternalServerError),
        (Step(status=529, times=0), anthropic.InternalServerError),
        (Step(status=401, echoes_authorization=True), anthropic.InternalServerError),
        (Step(body="malformed_json"), anthropic.InternalServerError),
    ],
    ids=["400", "413", "429", "500", "529", "401", "malformed"],
)
async def test_the_official_client_raises_its_own_right_exception(
    *,
    step: Step,
    error: type[anthropic.APIStatusError],
    gateway: GatewayServer,
    caller: Caller,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(step)
    async with gateway.anthropic(caller) as client:
        with pytest.raises(error) as raised:
            await client.messages.create(model=MODEL, max_tokens=9, messages=ASK)
    body: Any = raised.value.body
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message", "details"}
    assert body["request_id"] == raised.value.request_id
    assert PROVIDER_KEY not in str(raised.value)


@pytest.mark.parametrize(
    "step", [Step(output_tokens=20, cut_after_chunks=4), Step(output_tokens=20, error_after_chunks=4)]
)
async def test_a_broken_stream_raises_in_the_official_client(
    step: Step, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(step)
    async with gateway.anthropic(caller) as client:
        stream = await client.messages.create(model=MODEL, max_tokens=64, messages=ASK, stream=True)
        with pytest.raises(anthropic.APIStatusError) as raised:
            _ = [event async for event in stream]
    assert raised.value.error_code in {"provider_stream_cut", "provider_stream_failed"}
    bill = fake_provider.bill()
    [row] = await usage_rows(database, caller, count=1)
    # the prompt is known from the first event, exactly
    assert (row["outcome"], row["estimated"], row["input_tokens"]) == ("cut", True, bill.input_tokens)
    assert 0 < row["output_tokens"] <= 4


async def test_errors_before_the_call_raise_the_official_clients_exceptions(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    async with gateway.anthropic(caller) as client:
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await client.messages.create(model="no/such", max_tokens=9, messages=ASK)
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(model=MODEL, max_tokens=-1, messages=ASK)
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="nonsense").messages.create(model=MODEL, max_tokens=9, messages=ASK)
        await set_limits(database, caller, requests_per_minute=0)
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(model=MODEL, max_tokens=9, messages=ASK)
    assert unknown.value.type == "not_found_error"
    assert "no/such" in (unknown.value.api_message or "")


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/messages", 405, "invalid_request_error"),
        ("POST", "/messages/batches", 404, "not_found_error"),
        ("POST", "/complete", 404, "not_found_error"),
        ("POST", "/messages", 413, "request_too_large"),
    ],
)
async def test_what_is_refused_at_the_door_has_anthropics_shape_too(
    *, method: str, path: str, status: int, kind: str, gateway: GatewayServer, caller: Caller
) -> None:
    body = b" " * (11 * 1024 * 1024 if status == 413 else 1)
    headers = {"anthropic-version": ANTHROPIC_API_VERSION, "content-type": "application/json"}
    async with gateway.http(caller) as client:
        answer = await client.request(method, path, content=body, headers=headers)
    assert answer.status_code == status
    assert (answer.json()["type"], answer.json()["error"]["type"]) == ("error", kind)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_spent_budget_is_asked_for_once(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, nano_usd_per_month=600_000)
    fake_provider.script(Step(output_tokens=200, ignores_max_tokens=True))
    async with gateway.anthropic(caller, max_retries=3) as client:
        await client.messages.create(model=MODEL, max_tokens=64, messages=ASK)
        with pytest.raises(anthropic.RateLimitError) as raised:
            await client.messages.create(model=MODEL, max_tokens=64, messages=ASK)
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert raised.value.error_code == "budget_exceeded"
    assert raised.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert fake_provider.bill().counts.requests == 1


async def test_leaving_a_stream_closes_the_providers_connection(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=50, hold_after_chunks=3))
    async with gateway.anthropic(caller) as client:
        stream = await client.messages.create(model=MODEL, max_tokens=64, messages=ASK, stream=True)
        async for event in stream:
            if event.type == "content_block_delta":
                break
        await stream.close()
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("client_gone", True)
    assert 0 < row["output_tokens"] <= 3


def _without_ids(raw: bytes) -> bytes:
    """The bytes of a stream without the number that the fake provider gave the answer."""
    head, _, rest = raw.partition(b'"id":"msg_fake')
    return head + rest[20:]
