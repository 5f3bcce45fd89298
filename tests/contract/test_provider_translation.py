"""Calls in one vendor's format to a provider that speaks another's: words, tools, usage and failures arrive whole."""

import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from llm_gateway.providers.contract import FailureKind, ProviderFailure
from llm_gateway.providers.litellm_module import LitellmModule
from tests.support.fake_provider import FakeProvider, Step, ToolCall
from tests.support.translating import Asker, asker_of, catalog_of

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MESSAGES = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}
RESPONSES = {"input": "Hi", "max_output_tokens": 50}
ANTHROPIC_TOOLS = [{"name": "get_weather", "input_schema": SCHEMA}]
CHAT_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
RESPONSES_TOOLS = [{"type": "function", "name": "get_weather", "parameters": SCHEMA}]
TWO_CALLS = Step(
    text="One moment.",
    tool_calls=(
        ToolCall(name="get_weather", arguments='{"city": "Bern"}'),
        ToolCall(name="get_weather", arguments='{"city": "Uri"}'),
    ),
)
STREAM = {"stream": True}
TEXT = {"content_block_delta", "response.output_text.delta"}


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:  # options are the plugin's own, of mixed types
    """asyncio's own loop: uvloop waits for ever in `close` for a connection of litellm's that another loop had."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(autouse=True)
def provider(fake_provider: FakeProvider) -> FakeProvider:
    fake_provider.reset()
    return fake_provider


@pytest.fixture(scope="module")
async def asker(fake_provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asker]:
    """One for all tests, so that they share one event loop: litellm's clients and its worker know but one."""
    here = f'base_url = "{fake_provider.url}/v1"\nmodel = "scripted"'
    catalog = catalog_of(
        tmp_path_factory.mktemp("translation"),
        {
            "chats": here,
            "openai": f'provider = "openai"\n{here}',
            "mistral": f'provider = "mistral"\n{here}',
            "claude": f'provider = "anthropic"\n{here}',
            "nowhere": f'provider = "anthropic"\nbase_url = "{fake_provider.refused_url}/v1"\nmodel = "scripted"',
        },
    )
    async with asker_of(catalog) as made:
        yield made


def sent(provider: FakeProvider) -> Any:  # Any: JSON
    return orjson.loads(provider.requests()[-1].body)


async def test_a_message_over_chat_completions_has_its_text_its_end_and_its_usage(
    asker: Asker, provider: FakeProvider
) -> None:
    provider.script(Step(output_tokens=3, input_tokens=10, cached_input_tokens=4))
    answer = (await asker.ask("chats", "messages", {**MESSAGES, "system": "Be brief.", "stop_sequences": ["x"]})).body
    assert answer["id"] == "msg_call-1"
    assert answer["content"] == [{"type": "text", "text": "word0 word1 word2"}]
    assert answer["stop_reason"] == "end_turn"
    assert answer["usage"] == {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 3}
    assert sent(provider) == {
        "model": "scripted",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 50,
        "stop": ["x"],
    }


async def test_a_streamed_message_over_chat_completions_has_anthropics_sequence(
    asker: Asker, provider: FakeProvider
) -> None:
    provider.script(Step(output_tokens=2, input_tokens=10, cached_input_tokens=4))
    events = (await asker.ask("chats", "messages", MESSAGES | STREAM)).events
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["id"] == "msg_call-1"
    assert events[-2]["delta"]["stop_reason"] == "end_turn"
    assert events[-2]["usage"] == {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 2}
    assert sent(provider)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("model", ["chats", "openai", "mistral"])
async def test_arguments_of_tools_arrive_whole_in_a_streamed_message(
    model: str, asker: Asker, provider: FakeProvider
) -> None:
    """LiteLLM#25561: they were dropped."""
    provider.script(TWO_CALLS)
    events = (await asker.ask(model, "messages", MESSAGES | STREAM | {"tools": ANTHROPIC_TOOLS})).events
    started = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [block["type"] for block in started] == ["text", "tool_use", "tool_use"]
    arguments = ["", "", ""]
    for event in events:
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta":
            arguments[event["index"]] += event["delta"]["partial_json"]
    assert arguments == ["", '{"city": "Bern"}', '{"city": "Uri"}']
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_a_conversation_with_pictures_and_tools_is_put_into_openais_words(
    asker: Asker, provider: FakeProvider
) -> None:
    picture = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    conversation = [
        {"role": "user", "content": [{"type": "image", "source": picture}, {"type": "text", "text": "Where?"}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Bern"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}]},
    ]
    choice = {"type": "tool", "name": "get_weather"}
    body = {"messages": conversation, "max_tokens": 50, "tools": ANTHROPIC_TOOLS, "tool_choice": choice}
    answer = (await asker.ask("mistral", "messages", body)).body
    assert answer["stop_reason"] == "tool_use"
    user, assistant, tool = sent(provider)["messages"]
    assert user["content"][0]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    assert assistant["tool_calls"][0]["function"]["arguments"] == '{"city": "Bern"}'
    assert assistant.keys() <= {"role", "content", "tool_calls"}
    assert tool == {"role": "tool", "tool_call_id": "t1", "content": "sunny"}
    assert sent(provider)["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}


async def test_a_message_with_a_schema_is_answered_by_it(asker: Asker, provider: FakeProvider) -> None:
    wanted = {"format": {"type": "json_schema", "schema": SCHEMA}}
    answer = (await asker.ask("openai", "messages", {**MESSAGES, "output_config": wanted})).body
    assert answer["content"][0]["text"] == '{"city": "text"}'
    assert sent(provider)["response_format"]["type"] == "json_schema"
    assert sent(provider)["max_completion_tokens"] == 50


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_nobody_reported_is_not_made_up(stream: bool, asker: Asker, provider: FakeProvider) -> None:
    provider.script(Step(usage="missing", output_tokens=2), Step(usage="missing", output_tokens=2))
    message = await asker.ask("chats", "messages", {**MESSAGES, "stream": stream})
    response = await asker.ask("chats", "responses", {**RESPONSES, "stream": stream})
    if stream:
        assert "usage" not in message.events[-2]
        assert "usage" not in response.events[-1]["response"]
    else:
        assert "usage" not in message.body
        assert "usage" not in response.body


@pytest.mark.parametrize("endpoint", ["messages", "responses"])
@pytest.mark.parametrize(
    ("step", "stream"),
    [
        (Step(body="empty_choices"), False),
        (Step(body="malformed_json"), False),
        (Step(output_tokens=5, error_after_chunks=0), True),
    ],
)
async def test_what_is_no_answer_is_a_failure_before_a_byte_is_passed_on(
    endpoint: Any, step: Step, stream: bool, asker: Asker, provider: FakeProvider
) -> None:
    """LiteLLM#30761: an answer without choices crashed."""
    provider.script(step)
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask("chats", endpoint, {**(MESSAGES if endpoint == "messages" else RESPONSES), "stream": stream})
    assert failure.value.kind in {FailureKind.UNUSABLE, FailureKind.LOST}
    assert not failure.value.may_ask_another


@pytest.mark.parametrize(("model", "endpoint"), [("chats", "messages"), ("chats", "responses"), ("claude", "chat")])
@pytest.mark.parametrize(
    "step",
    [
        Step(output_tokens=5, cut_after_chunks=2, cut="end"),
        Step(output_tokens=5, cut_after_chunks=2, cut="close"),
        Step(output_tokens=5, error_after_chunks=2),
    ],
)
async def test_half_a_stream_is_never_given_an_end_of_our_own(
    model: str, endpoint: Any, step: Step, asker: Asker, provider: FakeProvider
) -> None:
    provider.script(step)
    body = RESPONSES if endpoint == "responses" else MESSAGES
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask(model, endpoint, body | STREAM)
    assert failure.value.kind is FailureKind.LOST


async def test_a_response_over_chat_completions_keeps_its_shape(asker: Asker, provider: FakeProvider) -> None:
    provider.script(TWO_CALLS)
    asked = {**RESPONSES, "instructions": "Be brief.", "tools": RESPONSES_TOOLS, "store": False}
    answer = (await asker.ask("chats", "responses", asked)).body
    assert (answer["id"], answer["store"], answer["status"]) == ("resp_call-1", False, "completed")
    assert [item["type"] for item in answer["output"]] == ["message", "function_call", "function_call"]
    assert answer["output"][2]["arguments"] == '{"city": "Uri"}'
    assert sent(provider)["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("model", ["chats", "claude"])
async def test_a_streamed_response_has_openais_sequence(model: str, asker: Asker, provider: FakeProvider) -> None:
    provider.script(TWO_CALLS)
    events = (await asker.ask(model, "responses", RESPONSES | STREAM | {"tools": RESPONSES_TOOLS})).events
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    done = [event["arguments"] for event in events if event["type"] == "response.function_call_arguments.done"]
    assert done == ['{"city": "Bern"}', '{"city": "Uri"}']
    assert {event["response"]["id"] for event in events if "response" in event} == {"resp_call-1"}
    assert events[-1]["response"]["usage"]["output_tokens"] == provider.bill().output_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_completion_over_messages_has_reasoning_tools_and_exact_usage(
    stream: bool, asker: Asker, provider: FakeProvider
) -> None:
    provider.script(
        Step(
            reasoning_text="Let me think.",
            input_tokens=100,
            cached_input_tokens=80,
            text="One moment.",
            tool_calls=TWO_CALLS.tool_calls,
        )
    )
    body = {**CHAT, "tools": CHAT_TOOLS, "stream": stream}
    answer = await asker.ask("claude", "chat", body | ({"stream_options": {"include_usage": True}} if stream else {}))
    if stream:
        deltas = [choice["delta"] for event in answer.events for choice in event["choices"]]
        calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
        assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "Let me think."
        assert "".join(call["arguments"] for call in calls) == '{"city": "Bern"}{"city": "Uri"}'
        assert answer.pieces[-1] == b"data: [DONE]\n\n"
        usage = answer.events[-1]["usage"]
    else:
        message = answer.body["choices"][0]["message"]
        assert [call["function"]["arguments"] for call in message["tool_calls"]] == [
            '{"city": "Bern"}', '{"city": "Uri"}',
        ]  # fmt: skip
        assert message["reasoning_content"] == "Let me think."
        usage = answer.body["usage"]
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (100, 80)
    assert usage["completion_tokens"] == provider.bill().output_tokens
    assert provider.requests()[-1].headers["x-api-key"] == "key-anthropic"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REJECTED),
        (401, FailureKind.CREDENTIAL),
        (403, FailureKind.CREDENTIAL),
        (404, FailureKind.MODEL_MISSING),
        (408, FailureKind.OVERLOADED),
        (409, FailureKind.OVERLOADED),
        (413, FailureKind.REJECTED),
        (422, FailureKind.REJECTED),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.BROKEN),
        (503, FailureKind.OVERLOADED),
        (529, FailureKind.OVERLOADED),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_litellms_exceptions_are_the_providers_statuses(
    status: int, kind: FailureKind, stream: bool, asker: Asker, provider: FakeProvider
) -> None:
    provider.script(Step(status=status, retry_after_s=7))
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask("claude", "chat", {**CHAT, "stream": stream})
    assert (failure.value.kind, failure.value.status, failure.value.retry_after_s) == (kind, status, 7.0)
    assert provider.bill().counts.requests == 1


@pytest.mark.parametrize("connection", ["reset", "close"])
async def test_a_connection_that_broke_is_not_asked_a_second_time(
    connection: Any, asker: Asker, provider: FakeProvider
) -> None:
    """litellm would ask again by itself, and both answers would be on the bill."""
    provider.script(Step(connection=connection))
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask("claude", "chat", CHAT)
    assert failure.value.kind is FailureKind.LOST
    assert provider.bill().counts.requests == 1


@pytest.mark.parametrize(("model", "endpoint"), [("chats", "messages"), ("claude", "chat"), ("claude", "responses")])
async def test_whoever_leaves_a_stream_closes_the_providers_connection(
    model: str, endpoint: Any, asker: Asker, provider: FakeProvider
) -> None:
    provider.script(Step(endless=True, delay_between_chunks_s=0.01))
    body = RESPONSES if endpoint == "responses" else MESSAGES
    answer = await asker.begin(model, endpoint, body | STREAM)
    assert await answer.read()
    answer.abort()
    answer.abort()
    await provider.wait_for(client_gone=1)


async def test_a_provider_that_cannot_be_reached_did_no_work(asker: Asker) -> None:
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask("nowhere", "chat", CHAT)
    assert failure.value.kind is FailureKind.UNREACHABLE


@pytest.mark.parametrize(
    ("model", "endpoint", "field"),
    [
        ("claude", "chat", "api_base"),
        ("claude", "chat", "mock_response"),
        ("chats", "messages", "context_management"),
        ("chats", "messages", "mcp_servers"),
        ("chats", "messages", "container"),
        ("chats", "responses", "previous_response_id"),
        ("chats", "responses", "background"),
    ],
)
async def test_a_field_that_is_none_of_the_formats_own_is_refused_by_name(
    model: str, endpoint: Any, field: str, asker: Asker, provider: FakeProvider
) -> None:
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask(model, endpoint, {**(RESPONSES if endpoint == "responses" else MESSAGES), field: "x"})
    assert (failure.value.kind, failure.value.code) == (FailureKind.REJECTED, "unsupported_parameter")
    assert failure.value.param == field
    assert provider.requests() == ()


async def test_what_cannot_be_translated_is_the_requests_fault_and_asks_nobody(
    asker: Asker, provider: FakeProvider
) -> None:
    """LiteLLM#35303: one malformed part and its fallbacks kept a replica busy."""
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask("chats", "messages", {"messages": [{"role": "user", "content": [7]}], "max_tokens": 5})
    assert failure.value.kind is FailureKind.UNTRANSLATABLE
    assert failure.value.work_was_refused
    assert not failure.value.may_ask_another
    assert provider.requests() == ()


@pytest.mark.parametrize("arguments", ['{"city": "Ber', '{"city": "Bern"}{', "{city}"])
async def test_arguments_of_tools_that_are_no_json_are_the_requests_fault_and_ask_nobody(
    arguments: str, asker: Asker, provider: FakeProvider
) -> None:
    """LiteLLM#35303: a conversation with such arguments and fallbacks in a circle kept a replica busy for ever."""
    call = {"id": "t1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    conversation = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
    ]
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask("claude", "chat", {**CHAT, "messages": conversation, "tools": CHAT_TOOLS})
    assert failure.value.work_was_refused
    assert not failure.value.may_ask_another
    assert provider.requests() == ()


@pytest.mark.parametrize("arguments", ['{"city": "Ber', "[]", "7"])
async def test_arguments_of_tools_that_are_no_object_are_no_message_and_are_paid_once(
    arguments: str, asker: Asker, provider: FakeProvider
) -> None:
    provider.script(Step(tool_calls=(ToolCall(name="get_weather", arguments=arguments),)))
    with pytest.raises(ProviderFailure) as failure:
        await asker.ask("chats", "messages", {**MESSAGES, "tools": ANTHROPIC_TOOLS})
    assert failure.value.kind is FailureKind.UNUSABLE
    assert not failure.value.may_ask_another
    assert len(provider.requests()) == 1


async def test_a_use_of_a_tool_that_was_cut_at_the_maximum_is_a_message_that_says_so(
    asker: Asker, provider: FakeProvider
) -> None:
    cut = ToolCall(name="get_weather", arguments='{"city": "Ber')
    provider.script(Step(text="One moment.", tool_calls=(TWO_CALLS.tool_calls[0], cut), finish_reason="length"))
    answer = (await asker.ask("chats", "messages", {**MESSAGES, "tools": ANTHROPIC_TOOLS})).body
    assert answer["stop_reason"] == "max_tokens"
    assert [block.get("input") for block in answer["content"]] == [None, {"city": "Bern"}, {}]


@pytest.mark.parametrize(("endpoint", "body"), [("messages", MESSAGES), ("responses", RESPONSES)])
async def test_chunks_without_choices_are_passed_over(
    endpoint: Any, body: dict[str, Any], asker: Asker, provider: FakeProvider
) -> None:
    """LiteLLM#30761. Azure's first chunk has none (what its filter says of the prompt), the one with usage neither."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        {**head, "id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}]},
        {**head, "choices": []},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}},
    ]
    lines = [f"data: {orjson.dumps(chunk).decode()}" for chunk in chunks]
    provider.script(Step(sse="\n\n".join([*lines, "data: [DONE]", ""])))
    events = (await asker.ask("chats", endpoint, body | STREAM)).events
    assert [event["delta"] for event in events if event["type"] in TEXT] in (
        ["Hi"],
        [{"type": "text_delta", "text": "Hi"}],
    )
    assert events[-1]["type"] in {"message_stop", "response.completed"}
    last = events[-2] if endpoint == "messages" else events[-1]["response"]
    assert (last["usage"]["input_tokens"], last["usage"]["output_tokens"]) == (3, 1)


async def test_litellm_is_silent_and_its_proxy_is_not_there(asker: Asker) -> None:
    sdk = (await LitellmModule().get()).sdk
    assert not any([sdk.callbacks, sdk.input_callback, sdk.success_callback, sdk.failure_callback])
    assert (sdk.telemetry, sdk.cache, sdk.drop_params) == (False, None, False)
    assert not logging.getLogger("LiteLLM").isEnabledFor(logging.CRITICAL)
    assert sys.modules["litellm.proxy.proxy_server"] is None
