"""What OpenAI's official client makes of chat completions by itself: parsing, joining, probabilities, trying again."""

import json
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step, ToolCall
from tests.support.gateway_ledger import usage_rows
from tests.support.gateway_server import GatewayServer

TRACES = Path(__file__).parents[1] / "contract" / "traces"
ASK: Any = [{"role": "user", "content": "What is the weather in Basel?"}]  # the SDK's own message types are unions
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
BOTH_PROTOCOLS = pytest.mark.parametrize("model", ["fake/chat", "fake/claude"])
BOTH_CITIES = (
    ToolCall(name="get_weather", arguments='{"city": "Basel"}'),
    ToolCall(name="get_weather", arguments='{"city": "Zürich"}'),
)


class Forecast(BaseModel):
    city: str
    sunny: bool


async def test_structured_answers_are_parsed(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text='{"city": "Basel", "sunny": true}', times=2))
    async with gateway.sdk(caller) as client:
        whole = await client.chat.completions.parse(model="fake/chat", messages=ASK, response_format=Forecast)
        async with client.chat.completions.stream(model="fake/chat", messages=ASK, response_format=Forecast) as stream:
            streamed = await stream.get_final_completion()
    assert whole.choices[0].message.parsed == Forecast(city="Basel", sunny=True)
    assert streamed.choices[0].message.parsed == Forecast(city="Basel", sunny=True)


@BOTH_PROTOCOLS
async def test_parallel_calls_of_tools_are_joined_from_their_pieces(
    model: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(tool_calls=BOTH_CITIES, split_bytes=29), Step(tool_calls=BOTH_CITIES))
    async with gateway.sdk(caller) as client:
        async with client.chat.completions.stream(model=model, messages=ASK, tools=[WEATHER]) as stream:
            streamed = (await stream.get_final_completion()).choices[0].message
        whole = (await client.chat.completions.create(model=model, messages=ASK, tools=[WEATHER])).choices[0].message
    for calls in (streamed.tool_calls, whole.tool_calls):
        functions: list[Any] = [call.function for call in calls or []]  # type: ignore[union-attr]  # none is custom
        assert [json.loads(function.arguments)["city"] for function in functions] == ["Basel", "Zürich"]


async def test_the_probabilities_of_tokens_pass(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(sse=(TRACES / "openai_chat_logprobs.sse").read_text()))
    async with gateway.sdk(caller) as client:
        opened = await client.chat.completions.create(
            model="fake/chat", messages=ASK, logprobs=True, top_logprobs=2, stream=True
        )
        tokens = [
            one.token
            async for chunk in opened
            if chunk.choices and chunk.choices[0].logprobs
            for one in chunk.choices[0].logprobs.content or []
        ]
    assert tokens == ["Yes", ".", ' "usage":null']


async def test_what_may_help_is_tried_again_and_paid_once(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(status=503, retry_after_s=0.01, times=3), Step(text="At last."))
    async with gateway.sdk(caller, max_retries=3) as client:
        raw = await client.chat.completions.with_raw_response.create(model="fake/chat", messages=ASK)
    assert raw.parse().choices[0].message.content == "At last."
    assert raw.retries_taken > 0  # the gateway's own attempts were not enough
    rows = await usage_rows(database, caller, count=raw.retries_taken + 1)
    assert sum(row["cost_nano_usd"] > 0 for row in rows) == 1


@pytest.mark.parametrize(
    "fields", [{"n": 99}, {"max_tokens": 0}, {"messages": []}, {"tools": [{"type": "web_search"}]}], ids=str
)
async def test_a_mistake_of_the_callers_makes_one_attempt(
    fields: dict[str, Any], gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    attempts: list[httpx.Request] = []

    async def remember(request: httpx.Request) -> None:
        attempts.append(request)

    async with gateway.sdk(caller, max_retries=5) as client:
        client._client.event_hooks["request"].append(remember)
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(**{"model": "fake/chat", "messages": ASK, **fields})
    assert len(attempts) == 1
    assert fake_provider.bill().counts.requests == 0


async def test_a_body_too_large_is_its_own_status(gateway: GatewayServer, caller: Caller) -> None:
    huge: Any = [{"role": "user", "content": "x" * (11 * 1024 * 1024)}]
    async with gateway.sdk(caller) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.chat.completions.create(model="fake/chat", messages=huge)
    assert refused.value.status_code == 413
    assert isinstance(refused.value.body, dict)
    assert set(refused.value.body) == {"message", "type", "param", "code"}
