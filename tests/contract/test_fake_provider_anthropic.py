"""Anthropic's own client is the judge of the fake provider's Anthropic format."""

from collections.abc import AsyncIterator

import anthropic
import pytest
from anthropic.types import Message, MessageParam, ToolParam

from tests.support.fake_provider import FakeProvider, Step, ToolCall

HELLO: list[MessageParam] = [{"role": "user", "content": "Hi there"}]
TOOL: ToolParam = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def provider(fake_provider: FakeProvider) -> FakeProvider:
    fake_provider.reset()
    return fake_provider


@pytest.fixture
async def client(provider: FakeProvider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=provider.url, api_key="sk-ant-test", max_retries=0, _strict_response_validation=True
    ) as made:
        yield made


async def test_a_message_has_its_text_and_what_it_cost(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(model="fake/tokens-3", max_tokens=50, messages=HELLO, system="Be brief")
    assert message.content[0].type == "text"
    assert message.content[0].text == "word0 word1 word2"
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 3)
    assert message._request_id is not None


async def test_tokens_read_from_the_cache_are_counted_beside_the_input(
    client: anthropic.AsyncAnthropic, provider: FakeProvider
) -> None:
    provider.script(Step(input_tokens=100, cached_input_tokens=80))
    message = await client.messages.create(model="m", max_tokens=50, messages=HELLO)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (20, 80)
    assert (provider.bill().input_tokens, provider.bill().cached_input_tokens) == (100, 80)


async def test_a_stream_has_anthropics_sequence_of_events(client: anthropic.AsyncAnthropic) -> None:
    opened = await client.messages.create(model="fake/tokens-2", max_tokens=50, messages=HELLO, stream=True)
    kinds = [event.type async for event in opened]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_a_stream_adds_up_to_the_message(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(model="fake/tokens-9", max_tokens=4, messages=HELLO) as opened:
        message = await opened.get_final_message()
    assert message.content[0].type == "text"
    assert message.content[0].text == "word0 word1 word2 word3"
    assert message.stop_reason == "max_tokens"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (5, 4)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_is_used_with_its_input(
    client: anthropic.AsyncAnthropic, provider: FakeProvider, streamed: bool
) -> None:
    provider.script(Step(text="One moment.", tool_calls=(ToolCall(name="get_weather", arguments='{"city": "Bern"}'),)))
    message: Message
    if streamed:
        async with client.messages.stream(model="m", max_tokens=50, messages=HELLO, tools=[TOOL]) as opened:
            message = await opened.get_final_message()
    else:
        message = await client.messages.create(model="m", max_tokens=50, messages=HELLO, tools=[TOOL])
    text, tool = message.content
    assert text.type == "text"
    assert tool.type == "tool_use"
    assert (tool.name, tool.input) == ("get_weather", {"city": "Bern"})
    assert message.stop_reason == "tool_use"


async def test_a_tool_choice_forces_a_call(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(
        model="fake-model", max_tokens=50, messages=HELLO, tools=[TOOL], tool_choice={"type": "any"}
    )
    assert message.content[0].type == "tool_use"
    assert message.content[0].input == {"city": "text"}


async def test_thinking_comes_before_the_answer_and_is_billed(
    client: anthropic.AsyncAnthropic, provider: FakeProvider
) -> None:
    async with client.messages.stream(model="fake/reasoning", max_tokens=50, messages=HELLO) as opened:
        message = await opened.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert provider.bill().output_tokens == message.usage.output_tokens == 14


async def test_the_prompts_tokens_are_counted_for_nothing(
    client: anthropic.AsyncAnthropic, provider: FakeProvider
) -> None:
    count = await client.messages.count_tokens(model="fake-model", messages=HELLO)
    assert count.input_tokens == 5
    assert (provider.bill().input_tokens, provider.bill().output_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_a_refusal_raises_the_clients_own_exception(
    client: anthropic.AsyncAnthropic, status: int, error: type[anthropic.APIStatusError], kind: str
) -> None:
    with pytest.raises(error) as raised:
        await client.messages.create(model=f"fake/error-{status}", max_tokens=50, messages=HELLO)
    body = raised.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["error"]["type"] == kind


async def test_an_error_event_within_a_stream_raises(client: anthropic.AsyncAnthropic) -> None:
    opened = await client.messages.create(model="fake/error-event-1", max_tokens=50, messages=HELLO, stream=True)
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        [event async for event in opened]


async def test_max_tokens_is_required(provider: FakeProvider, client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        await client.post("/v1/messages", body={"model": "m", "messages": HELLO}, cast_to=object)
