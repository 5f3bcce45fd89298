"""Each vendor's official client, of a model that the other vendor's format reaches: the same answers, the same bill."""

from typing import Any

import asyncpg
import openai
import pytest

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step, ToolCall
from tests.support.gateway_ledger import usage_rows
from tests.support.gateway_server import INPUT_NANO_USD, OUTPUT_NANO_USD, GatewayServer

CLAUDE, GPT = "fake/claude", "fake/o-series"
ASK: Any = [{"role": "user", "content": "What is the weather in Basel?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANTHROPIC_TOOL: Any = {"name": "get_weather", "input_schema": SCHEMA}
OPENAI_TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
ONE_CALL = Step(text="One moment.", tool_calls=(ToolCall(name="get_weather", arguments='{"city": "Basel"}'),))


async def test_anthropics_client_and_an_openai_provider_call_a_tool_and_answer(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider, database: asyncpg.Connection
) -> None:
    fake_provider.script(ONE_CALL, Step(text="It is sunny."))
    async with gateway.anthropic(caller) as client:
        asked = await client.messages.create(model=GPT, max_tokens=64, messages=ASK, tools=[ANTHROPIC_TOOL])
        text, tool = asked.content
        assert (text.type, tool.type, asked.stop_reason) == ("text", "tool_use", "tool_use")
        assert (getattr(tool, "name", None), getattr(tool, "input", None)) == ("get_weather", {"city": "Basel"})
        result: Any = {"type": "tool_result", "tool_use_id": getattr(tool, "id", ""), "content": "sunny"}
        messages: Any = [*ASK, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
        told = await client.messages.create(model=GPT, max_tokens=64, messages=messages, tools=[ANTHROPIC_TOOL])
    assert getattr(told.content[0], "text", None) == "It is sunny."
    assert {request.path for request in fake_provider.requests()} == {"/v1/chat/completions"}
    await _billed(database, caller, fake_provider, calls=2)


async def test_anthropics_client_streams_from_an_openai_provider(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider, database: asyncpg.Connection
) -> None:
    fake_provider.script(ONE_CALL)
    async with (
        gateway.anthropic(caller) as client,
        client.messages.stream(model=GPT, max_tokens=64, messages=ASK, tools=[ANTHROPIC_TOOL]) as stream,
    ):
        message = await stream.get_final_message()
    text, tool = message.content
    assert getattr(text, "text", None) == "One moment."
    assert getattr(tool, "input", None) == {"city": "Basel"}
    bill = fake_provider.bill()
    assert (message.usage.input_tokens, message.usage.output_tokens) == (bill.input_tokens, bill.output_tokens)
    await _billed(database, caller, fake_provider, calls=1)


async def test_openais_client_and_an_anthropic_provider_call_a_tool_and_answer(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider, database: asyncpg.Connection
) -> None:
    fake_provider.script(ONE_CALL, Step(text="It is sunny."))
    async with gateway.sdk(caller) as client:
        asked = await client.chat.completions.create(model=CLAUDE, max_tokens=64, messages=ASK, tools=[OPENAI_TOOL])
        [call] = asked.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Basel"}')
        assert asked.choices[0].finish_reason == "tool_calls"
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        messages: Any = [*ASK, asked.choices[0].message.to_dict(), result]
        told = await client.chat.completions.create(model=CLAUDE, max_tokens=64, messages=messages, tools=[OPENAI_TOOL])
    assert told.choices[0].message.content == "It is sunny."
    assert {request.path for request in fake_provider.requests()} == {"/v1/messages"}
    await _billed(database, caller, fake_provider, calls=2)


async def test_openais_client_streams_from_an_anthropic_provider(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider, database: asyncpg.Connection
) -> None:
    fake_provider.script(ONE_CALL)
    async with gateway.sdk(caller) as client:
        stream = await client.chat.completions.create(
            model=CLAUDE, max_tokens=64, messages=ASK, tools=[OPENAI_TOOL], stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    calls = [call.function for delta in deltas for call in delta.tool_calls or [] if call.function]
    assert "".join(delta.content or "" for delta in deltas) == "One moment."
    assert "".join(call.arguments or "" for call in calls) == '{"city": "Basel"}'
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == fake_provider.bill().output_tokens
    await _billed(database, caller, fake_provider, calls=1)


async def test_openais_responses_stream_from_an_anthropic_provider(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider, database: asyncpg.Connection
) -> None:
    fake_provider.script(Step(text="It is sunny."))
    async with (
        gateway.sdk(caller) as client,
        client.responses.stream(model=CLAUDE, max_output_tokens=64, input="What is the weather?") as stream,
    ):
        response = await stream.get_final_response()
    assert response.output_text == "It is sunny."
    await _billed(database, caller, fake_provider, calls=1)


async def test_what_cannot_be_put_into_other_words_is_refused_by_its_name(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    async with gateway.sdk(caller) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model=CLAUDE, max_tokens=8, messages=ASK, extra_body={"top_k_of_somebody": 1}
            )
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "top_k_of_somebody")
    assert fake_provider.requests() == ()


async def _billed(database: asyncpg.Connection, caller: Caller, provider: FakeProvider, *, calls: int) -> None:
    """Every token that the provider counted was charged, and none was estimated."""
    rows = await usage_rows(database, caller, count=calls)
    bill = provider.bill()
    assert not any(row["estimated"] for row in rows)
    assert sum(row["cost_nano_usd"] for row in rows) == (
        bill.input_tokens * INPUT_NANO_USD + bill.output_tokens * OUTPUT_NANO_USD
    )
