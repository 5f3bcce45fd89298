"""Bedrock's streams, byte by byte as AWS frames them: text, tools, thoughts, usage, failures, clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web

from llm_gateway.accounting import TokenCounts
from llm_gateway.providers.contract import FailureKind, ProviderFailure
from llm_gateway.wire.format import Endpoint
from tests.support.aws_events import CONTENT_TYPE, event, exception
from tests.support.local_http import serving
from tests.support.translating import Asked, Asker, asker_of, catalog_of

# litellm's own doing, of pydantic's newer versions.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_")

MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50, "stream": True}
ASKED: dict[Endpoint, dict[str, Any]] = {
    "chat": {**MESSAGES, "stream_options": {"include_usage": True}},
    "messages": MESSAGES,
    "responses": {"input": "Hi", "max_output_tokens": 50, "stream": True},
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: dict[Endpoint, list[dict[str, Any]]] = {
    "chat": [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}],
    "messages": [{"name": "get_weather", "input_schema": SCHEMA}],
    "responses": [{"type": "function", "name": "get_weather", "parameters": SCHEMA}],
}


def deltas(block: int, *given: dict[str, Any]) -> bytes:
    """One content block, which ends."""
    written = [event("contentBlockDelta", {"contentBlockIndex": block, "delta": delta}) for delta in given]
    return b"".join(written) + event("contentBlockStop", {"contentBlockIndex": block})


def called(block: int, name: str, *pieces: str) -> bytes:
    start = {"toolUse": {"toolUseId": f"tooluse_{block}", "name": name}}
    return event("contentBlockStart", {"contentBlockIndex": block, "start": start}) + deltas(
        block, *({"toolUse": {"input": piece}} for piece in pieces)
    )


# Bedrock leaves what went through its cache out of inputTokens.
USAGE = {
    "inputTokens": 20, "outputTokens": 7, "totalTokens": 36, "cacheReadInputTokens": 5, "cacheWriteInputTokens": 4,
}  # fmt: skip
COUNTS = TokenCounts(input=20, cached_input=5, cache_write_5m=4, output=7)
START = event("messageStart", {"role": "assistant"})
TEXT = deltas(0, {"text": "One"}, {"text": " moment."})
STOP = event("messageStop", {"stopReason": "end_turn"})
END = event("metadata", {"usage": USAGE, "metrics": {"latencyMs": 5}})


@dataclass
class Bedrock:
    """Answers everything with the same bytes; where it `lingers`, more and more of the last text follow."""

    status: int = 200
    body: bytes = b""
    lingers: bool = False
    paths: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)  # Any: JSON
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.bodies.append(orjson.loads(await request.read()))
        if self.status != 200:
            return web.Response(status=self.status, body=self.body, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": CONTENT_TYPE})
        await response.prepare(request)
        try:
            # cut anywhere: no message ends where a piece does
            for start in range(0, len(self.body), 100):
                await response.write(self.body[start : start + 100])
            while self.lingers:
                await response.write(deltas(0, {"text": "word "}))
                await asyncio.sleep(0.005)
        except ConnectionError:
            self.left.set()
        return response


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:  # options are the plugin's own, of mixed types
    """asyncio's own loop: uvloop waits for ever in `close` for a connection of litellm's that another loop had."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
async def bedrock() -> Bedrock:
    return Bedrock()


@pytest.fixture(scope="module")
async def asker(bedrock: Bedrock, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asker]:
    """One for all tests, so that they share one event loop: litellm's clients know but one."""
    async with serving(bedrock.answer) as url:
        models = {
            "nova": f'provider = "bedrock"\nbase_url = "{url}"\nmodel = "amazon.nova-lite-v1:0"',
            "claude": f'provider = "bedrock"\nbase_url = "{url}"\nmodel = "anthropic.claude-sonnet-4-5-20250929-v1:0"',
        }
        async with asker_of(catalog_of(tmp_path_factory.mktemp("bedrock"), models)) as made:
            yield made


@pytest.fixture(autouse=True)
def fresh(bedrock: Bedrock) -> None:
    bedrock.status, bedrock.body, bedrock.lingers = 200, b"", False
    bedrock.paths.clear()
    bedrock.bodies.clear()
    bedrock.left.clear()


def texts_of(endpoint: Endpoint, answer: Asked) -> str:
    if endpoint == "chat":
        return "".join(choice["delta"].get("content") or "" for one in answer.events for choice in one["choices"])
    if endpoint == "messages":
        return "".join(one["delta"].get("text", "") for one in answer.events if one["type"] == "content_block_delta")
    return "".join(one["delta"] for one in answer.events if one["type"] == "response.output_text.delta")


def arguments_of(endpoint: Endpoint, answer: Asked) -> list[tuple[str, str]]:
    if endpoint == "responses":
        items = answer.events[-1]["response"]["output"]
        return [(item["name"], item["arguments"]) for item in items if item["type"] == "function_call"]
    calls: dict[int, list[str]] = {}
    for one in answer.events:
        if endpoint == "chat":
            for call in (call for choice in one["choices"] for call in choice["delta"].get("tool_calls") or ()):
                known = calls.setdefault(call["index"], ["", ""])
                known[0] += call["function"].get("name") or ""
                known[1] += call["function"].get("arguments") or ""
        elif one["type"] == "content_block_start" and one["content_block"]["type"] == "tool_use":
            calls[one["index"]] = [one["content_block"]["name"], ""]
        elif one["type"] == "content_block_delta" and one["delta"]["type"] == "input_json_delta":
            calls[one["index"]][1] += one["delta"]["partial_json"]
    return [(name, arguments) for name, arguments in calls.values()]


@pytest.mark.parametrize("endpoint", ["chat", "messages", "responses"])
async def test_text_tools_and_usage_of_a_stream_arrive_whole_in_every_format(
    endpoint: Endpoint, asker: Asker, bedrock: Bedrock
) -> None:
    two = called(1, "get_weather", '{"city"', ': "Bern"}') + called(2, "get_weather", '{"city": ', '"Uri"}')
    bedrock.body = START + TEXT + two + event("messageStop", {"stopReason": "tool_use"}) + END
    began = await asker.begin("nova", endpoint, {**ASKED[endpoint], "tools": TOOLS[endpoint]})
    pieces = []
    while piece := await began.read():
        pieces.append(piece)
    answer = Asked(tuple(pieces))
    assert bedrock.paths == ["/model/amazon.nova-lite-v1:0/converse-stream"]
    assert bedrock.bodies[0]["inferenceConfig"]["maxTokens"] == 50
    assert bedrock.bodies[0]["toolConfig"]["tools"][0]["toolSpec"]["name"] == "get_weather"
    assert texts_of(endpoint, answer) == "One moment."
    assert arguments_of(endpoint, answer) == [
        ("get_weather", '{"city": "Bern"}'), ("get_weather", '{"city": "Uri"}'),
    ]  # fmt: skip
    assert began.reported() == COUNTS
    if endpoint == "chat":
        [usage] = [one["usage"] for one in answer.events if "usage" in one]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (29, 7)
        assert "cost" not in usage  # litellm's price is not what the call costs here
        assert answer.events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    elif endpoint == "messages":
        end = answer.events[-2]
        assert (end["delta"]["stop_reason"], end["usage"]["input_tokens"]) == ("tool_use", 20)
        assert (end["usage"]["cache_read_input_tokens"], end["usage"]["cache_creation_input_tokens"]) == (5, 4)
    else:
        usage = answer.events[-1]["response"]["usage"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (29, 7)


async def test_thoughts_of_a_stream_are_thoughts(asker: Asker, bedrock: Bedrock) -> None:
    thought = deltas(0, {"reasoningContent": {"text": "Let me think."}}, {"reasoningContent": {"signature": "c2ln"}})
    bedrock.body = START + thought + deltas(1, {"text": "Hello!"}) + STOP + END
    answer = await asker.ask("claude", "chat", ASKED["chat"])
    found = [choice["delta"].get("reasoning_content") or "" for one in answer.events for choice in one["choices"]]
    assert "".join(found) == "Let me think."
    assert texts_of("chat", answer) == "Hello!"


@pytest.mark.parametrize("endpoint", ["chat", "messages", "responses"])
async def test_a_stream_without_usage_has_none(endpoint: Endpoint, asker: Asker, bedrock: Bedrock) -> None:
    bedrock.body = START + TEXT + STOP
    answer = await asker.ask("nova", endpoint, ASKED[endpoint])
    assert texts_of(endpoint, answer) == "One moment."
    told = [one.get("response", one).get("usage") for one in answer.events]
    assert [one for one in told if one] == []


@pytest.mark.parametrize("endpoint", ["chat", "messages", "responses"])
@pytest.mark.parametrize(
    "broken",
    [
        START + TEXT,  # ends between two messages
        (START + TEXT)[:-5],  # within one
        START + TEXT + b"\0" * 40,
        START + TEXT + TEXT[:-1] + b"?",  # with a wrong checksum
        START + TEXT + exception("throttlingException", "Too many tokens, please wait."),
        START + TEXT + exception("modelStreamErrorException", "The model failed."),
        START + exception("internalServerException", "Failed."),
    ],
    ids=["ends", "half", "nonsense", "checksum", "throttled", "model", "at first"],
)
async def test_half_a_stream_is_never_given_an_end_of_our_own(
    endpoint: Endpoint, broken: bytes, asker: Asker, bedrock: Bedrock
) -> None:
    bedrock.body = broken
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask("nova", endpoint, ASKED[endpoint])
    assert failure.value.kind is FailureKind.LOST
    assert len(bedrock.paths) == 1


@pytest.mark.parametrize("before", [b"", START])
async def test_who_is_throttled_before_the_first_word_may_ask_another(
    before: bytes, asker: Asker, bedrock: Bedrock
) -> None:
    """Bedrock has answered 200 by then; nothing was written, and nothing is billed."""
    bedrock.body = before + exception("throttlingException", "Too many requests")
    with pytest.raises(ProviderFailure) as failure:
        await asker.begin("nova", "chat", ASKED["chat"])
    assert (failure.value.kind, failure.value.may_ask_another) == (FailureKind.RATE_LIMITED, True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REJECTED),  # ValidationException
        (403, FailureKind.CREDENTIAL),  # AccessDeniedException
        (404, FailureKind.MODEL_MISSING),  # ResourceNotFoundException
        (408, FailureKind.OVERLOADED),  # ModelTimeoutException
        (424, FailureKind.BROKEN),  # ModelErrorException
        (429, FailureKind.RATE_LIMITED),  # ThrottlingException, ModelNotReadyException
        (500, FailureKind.BROKEN),  # InternalServerException
        (503, FailureKind.OVERLOADED),  # ServiceUnavailableException
    ],
)
async def test_a_refused_stream_is_one_of_our_failures(
    status: int, kind: FailureKind, asker: Asker, bedrock: Bedrock
) -> None:
    bedrock.status, bedrock.body = status, orjson.dumps({"message": "The account 123456789012 may not."})
    with pytest.raises(ProviderFailure) as failure:
        await asker.begin("nova", "chat", ASKED["chat"])
    assert (failure.value.kind, failure.value.status) == (kind, status)
    assert len(bedrock.paths) == 1


@pytest.mark.parametrize("endpoint", ["chat", "messages", "responses"])
async def test_whoever_leaves_a_stream_closes_bedrocks_connection(
    endpoint: Endpoint, asker: Asker, bedrock: Bedrock
) -> None:
    bedrock.body, bedrock.lingers = START + TEXT, True
    answer = await asker.begin("nova", endpoint, ASKED[endpoint])
    assert await answer.read()
    answer.abort()
    async with asyncio.timeout(10):
        await bedrock.left.wait()
    assert answer.reported() is None  # Bedrock says what was used at the end only
