"""OpenAI's official client is the judge: chat, streams, tools, structured answers, errors."""

import asyncio
import json
from typing import Any

import asyncpg
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support.callers import Caller, mint_token
from tests.support.fake_provider import FakeProvider, Step, ToolCall
from tests.support.gateway_ledger import usage_rows
from tests.support.gateway_server import PROVIDER_KEY, GatewayServer
from tests.support.stack import RunningStack

ASK: Any = [{"role": "user", "content": "What is the weather in Basel?"}]  # the SDK's own message types are unions
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
BOTH_PROTOCOLS = pytest.mark.parametrize("model", ["fake/chat", "fake/claude"])


async def test_models_are_listed_and_described(gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.sdk(caller) as client:
        names = [model.id async for model in await client.models.list()]
        one = await client.models.retrieve("fake/chat")
    assert "fake/chat" in names
    assert "fake/without-key" not in names
    assert (one.id, one.object, one.owned_by) == ("fake/chat", "model", "buttress")


@BOTH_PROTOCOLS
async def test_a_chat_is_answered_and_charged_to_the_token(
    model: str, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text="It is sunny in Basel."))
    async with gateway.sdk(caller) as client:
        answer = await client.chat.completions.create(model=model, messages=ASK, temperature=0.5)
    assert answer.choices[0].message.content == "It is sunny in Basel."
    bill = fake_provider.bill()
    [row] = await usage_rows(database, caller, count=1)
    assert (row["input_tokens"], row["output_tokens"]) == (bill.input_tokens, bill.output_tokens)
    assert row["cost_nano_usd"] == bill.input_tokens * 1000 + bill.output_tokens * 2000
    assert (row["outcome"], row["estimated"]) == ("ok", False)


async def test_the_synchronous_client_works_too(gateway: GatewayServer, caller: Caller) -> None:
    def ask() -> tuple[str | None, str]:
        with OpenAI(base_url=gateway.base_url, api_key=caller.access_token, max_retries=0) as client:
            answer = client.chat.completions.create(model="fake/chat", messages=ASK)
            with client.chat.completions.create(model="fake/chat", messages=ASK, stream=True) as stream:
                said = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        return answer.choices[0].message.content, said

    whole, streamed = await asyncio.to_thread(ask)
    assert whole == streamed


@BOTH_PROTOCOLS
async def test_a_stream_comes_in_chunks_and_is_charged_exactly(
    model: str, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=12))
    async with gateway.sdk(caller) as client:
        chunks = [chunk async for chunk in await client.chat.completions.create(model=model, messages=ASK, stream=True)]
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) == 12
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    bill = fake_provider.bill()
    [row] = await usage_rows(database, caller, count=1)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (bill.input_tokens, 12, False)


@BOTH_PROTOCOLS
async def test_a_stream_reports_usage_to_a_client_that_asks(
    model: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=5))
    async with gateway.sdk(caller) as client:
        stream = await client.chat.completions.create(
            model=model, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        usages = [chunk.usage async for chunk in stream if chunk.usage]
    assert usages[-1].completion_tokens == 5


@BOTH_PROTOCOLS
async def test_tools_are_called(
    model: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(tool_calls=(ToolCall(name="get_weather", arguments='{"city": "Basel"}'),)))
    async with gateway.sdk(caller) as client:
        answer = await client.chat.completions.create(model=model, messages=ASK, tools=[WEATHER])
        call: Any = answer.choices[0].message.tool_calls and answer.choices[0].message.tool_calls[0]
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Basel"})
        assert answer.choices[0].finish_reason == "tool_calls"
        fake_provider.script(Step(text="Sunny."))
        told: Any = [
            *ASK,
            {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        last = await client.chat.completions.create(model=model, messages=told, tools=[WEATHER])
    assert last.choices[0].message.content == "Sunny."


@BOTH_PROTOCOLS
async def test_tools_are_called_in_a_stream(
    model: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(tool_calls=(ToolCall(name="get_weather", arguments='{"city": "Basel"}'),)))
    async with gateway.sdk(caller) as client:
        stream = await client.chat.completions.create(model=model, messages=ASK, tools=[WEATHER], stream=True)
        name, arguments = "", ""
        async for chunk in stream:
            for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                name += (call.function and call.function.name) or ""
                arguments += (call.function and call.function.arguments) or ""
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Basel"})


async def test_a_structured_answer_passes(gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider) -> None:
    schema: Any = {
        "type": "json_schema",
        "json_schema": {
            "name": "weather",
            "schema": {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]},
        },
    }
    async with gateway.sdk(caller) as client:
        answer = await client.chat.completions.create(model="fake/chat", messages=ASK, response_format=schema)
    assert "sunny" in json.loads(answer.choices[0].message.content or "")


async def test_pictures_pass(gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    async with gateway.sdk(caller) as client:
        await client.chat.completions.create(model="fake/chat", messages=[{"role": "user", "content": parts}])
    [seen] = fake_provider.requests()
    assert json.loads(seen.body)["messages"][0]["content"] == parts


async def test_whatever_the_client_sends_in_openais_format_reaches_the_provider(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    async with gateway.sdk(caller) as client:
        await client.chat.completions.create(
            model="fake/chat",
            messages=ASK,
            seed=7,
            logit_bias={"50256": -100},
            metadata={"trace": "1"},
            extra_body={"a_field_of_tomorrow": {"deep": [1, 2.5, None]}},
            n=2,
            max_tokens=9,
        )
    [seen] = fake_provider.requests()
    body = json.loads(seen.body)
    assert body == {
        "model": "scripted",
        "messages": ASK,
        "seed": 7,
        "logit_bias": {"50256": -100},
        "metadata": {"trace": "1"},
        "a_field_of_tomorrow": {"deep": [1, 2.5, None]},
        "n": 2,
        "max_tokens": 9,
    }
    assert seen.authorization == f"Bearer {PROVIDER_KEY}"
    assert caller.access_token not in json.dumps(seen.headers)


async def test_the_clamped_maximum_goes_where_the_deployment_reads_it(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    async with gateway.sdk(caller) as client:
        await client.chat.completions.create(model="fake/chat", messages=ASK)
        await client.chat.completions.create(model="fake/chat", messages=ASK, max_completion_tokens=10**6)
        await client.chat.completions.create(model="fake/o-series", messages=ASK, max_tokens=5)
    bodies = [json.loads(seen.body) for seen in fake_provider.requests()]
    assert [body.get("max_tokens") for body in bodies] == [256, 256, None]
    assert [body.get("max_completion_tokens") for body in bodies] == [None, None, 5]


async def test_answers_of_a_model_with_a_note_carry_it(gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.sdk(caller) as client:
        raw = await client.chat.completions.with_raw_response.create(model="fake/chat", messages=ASK)
    assert raw.headers["x-buttress-model-note"] == "Whatever it says, it was told to say."
    assert float(raw.headers["x-buttress-overhead-ms"]) > 0
    assert float(raw.headers["x-buttress-cost-usd"]) > 0


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step(status=400), openai.BadRequestError),
        (Step(status=422), openai.UnprocessableEntityError),
        (Step(status=429, retry_after_s=9, times=0), openai.RateLimitError),
        (Step(status=500, times=0), openai.InternalServerError),
        (Step(status=529, times=0), openai.InternalServerError),
        (Step(status=401), openai.InternalServerError),
        (Step(body="malformed_json"), openai.InternalServerError),
    ],
    ids=["400", "422", "429", "500", "529", "401", "malformed"],
)
@BOTH_PROTOCOLS
async def test_the_official_client_raises_its_own_right_exception(
    *,
    model: str,
    step: Step,
    error: type[openai.APIStatusError],
    gateway: GatewayServer,
    caller: Caller,
    fake_provider: FakeProvider,
) -> None:
    fake_provider.script(step)
    async with gateway.sdk(caller) as client:
        with pytest.raises(error) as raised:
            await client.chat.completions.create(model=model, messages=ASK)
    assert raised.value.request_id is not None
    assert isinstance(raised.value.body, dict)
    assert set(raised.value.body) == {"message", "type", "param", "code"}
    assert PROVIDER_KEY not in str(raised.value)


@BOTH_PROTOCOLS
async def test_a_cut_stream_raises_in_the_official_client(
    model: str, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=20, cut_after_chunks=4))
    async with gateway.sdk(caller) as client:
        stream = await client.chat.completions.create(model=model, messages=ASK, stream=True)
        with pytest.raises(openai.APIError):
            _ = [chunk async for chunk in stream]
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("cut", True)
    assert 0 < row["output_tokens"] <= 4


@BOTH_PROTOCOLS
async def test_leaving_a_stream_closes_the_providers_connection(
    model: str, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=50, hold_after_chunks=3))
    async with gateway.sdk(caller) as client:
        stream = await client.chat.completions.create(model=model, messages=ASK, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        await stream.close()
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    assert row["outcome"] == "client_gone"
    assert row["cost_nano_usd"] > 0


async def test_errors_before_the_call_raise_the_official_clients_exceptions(
    gateway: GatewayServer, stack: RunningStack, caller: Caller, database: asyncpg.Connection
) -> None:
    async with gateway.sdk(caller) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="no/such", messages=ASK)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="fake/without-key", messages=ASK)
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("no/such")
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="fake/chat", messages=ASK, max_tokens=0)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    stale = mint_token(stack, caller.user_id, session_id=caller.user_id, lifetime_s=-3600)
    for token in ("sk-not-a-token", stale):
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=token, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="fake/chat", messages=ASK)
    assert await database.fetchval("select count(*) from gateway.usage where user_id = $1", caller.user_id) == 0
