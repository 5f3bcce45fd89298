"""OpenAI's own client, strict about what it parses, is the judge of the fake provider's OpenAI format."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionToolParam
from pydantic import BaseModel

from tests.support.fake_provider import FakeProvider, Step, ToolCall

TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


@pytest.fixture
def provider(fake_provider: FakeProvider) -> FakeProvider:
    fake_provider.reset()
    return fake_provider


@pytest.fixture
async def client(provider: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{provider.url}/v1", api_key="sk-test", max_retries=0, _strict_response_validation=True
    ) as made:
        yield made


async def test_an_answer_has_its_text_and_what_it_cost(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="fake-model", messages=[{"role": "user", "content": "Hi there"}]
    )
    assert answer.choices[0].message.content == "This answer comes from the fake provider, word for word."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 10, 15)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.id.startswith("chatcmpl-")
    assert answer._request_id is not None


async def test_every_choice_that_was_asked_for_is_there_and_billed(
    client: openai.AsyncOpenAI, provider: FakeProvider
) -> None:
    answer = await client.chat.completions.create(
        model="fake/tokens-4", messages=[{"role": "user", "content": "Hi"}], n=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert provider.bill().output_tokens == 12


async def test_max_tokens_cuts_the_answer_unless_the_step_ignores_it(
    client: openai.AsyncOpenAI, provider: FakeProvider
) -> None:
    provider.script(Step(output_tokens=50), Step(output_tokens=50, ignores_max_tokens=True))
    cut = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=7
    )
    whole = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=7)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 7
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 50


async def stream(client: openai.AsyncOpenAI, model: str, *, include_usage: bool = False) -> list[ChatCompletionChunk]:
    opened = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        stream_options={"include_usage": True} if include_usage else openai.omit,
    )
    return [chunk async for chunk in opened]


async def test_a_stream_opens_with_the_role_and_ends_with_the_reason(client: openai.AsyncOpenAI) -> None:
    chunks = await stream(client, "fake/tokens-3")
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "word0 word1 word2"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_reports_usage_in_a_chunk_of_its_own_when_asked(client: openai.AsyncOpenAI) -> None:
    chunks = await stream(client, "fake/tokens-3", include_usage=True)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (4, 3)
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_tool_is_called_with_arguments_that_fit_its_schema(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="fake/tool-call", messages=[{"role": "user", "content": "Weather?"}], tools=[TOOL]
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("get_weather", '{"city":"text","days":1}')


async def test_scripted_tool_calls_stream_in_fragments(client: openai.AsyncOpenAI, provider: FakeProvider) -> None:
    provider.script(
        Step(tool_calls=(ToolCall(name="get_weather", arguments='{"city": "Bern"}'), ToolCall(name="get_weather")))
    )
    opened = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Weather?"}], tools=[TOOL], stream=True
    )
    arguments = {0: "", 1: ""}
    async for chunk in opened:
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function is not None
            arguments[call.index] += call.function.arguments or ""
        finish = chunk.choices[0].finish_reason
    assert arguments == {0: '{"city": "Bern"}', 1: "{}"}
    assert finish == "tool_calls"
    assert provider.bill().output_tokens == 5


class City(BaseModel):
    name: str
    inhabitants: int
    twins: list[str]


async def test_a_schema_is_answered_with_json_that_fits_it(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.parse(
        model="fake-model", messages=[{"role": "user", "content": "A city"}], response_format=City
    )
    assert answer.choices[0].message.parsed == City(name="text", inhabitants=1, twins=["text"])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)
async def test_a_refusal_raises_the_clients_own_exception_and_costs_nothing(
    client: openai.AsyncOpenAI, provider: FakeProvider, status: int, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as raised:
        await stream(client, f"fake/error-{status}")
    assert raised.value.status_code == status
    assert isinstance(raised.value.body, dict)
    assert set(raised.value.body) == {"message", "type", "param", "code"}
    bill = provider.bill()
    assert [(line.outcome, line.status) for line in bill.lines] == [("refused", status)]
    assert (bill.input_tokens, bill.output_tokens) == (0, 0)


async def test_a_rate_limit_says_when_to_come_back(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        await stream(client, "fake/error-429-after-7s")
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.code == "rate_limit_exceeded"


async def test_an_error_event_within_a_stream_raises(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIError, match="server had an error"):
        await stream(client, "fake/error-event-2")


async def test_a_request_without_messages_is_invalid(client: openai.AsyncOpenAI, provider: FakeProvider) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        await client.chat.completions.create(model="fake-model", messages=[])
    assert provider.bill().counts.requests == 0


async def test_embeddings_are_the_same_unit_vector_in_both_encodings(client: openai.AsyncOpenAI) -> None:
    texts = ["one text", "another longer text"]
    plain = await client.embeddings.create(model="fake-model", input=texts, dimensions=8, encoding_format="float")
    # Base64 is this client's default; its own strict validation does not allow for it.
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key="sk-test", max_retries=0) as lenient:
        packed = await lenient.embeddings.create(model="fake-model", input=texts, dimensions=8)
    assert plain.usage.prompt_tokens == 5
    assert sum(value**2 for value in plain.data[1].embedding) == pytest.approx(1)
    for one, other in zip(plain.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


async def test_models_are_listed_and_found(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert "fake-model" in listed
    assert (await client.models.retrieve("fake-model")).owned_by == "fake-provider"


async def test_a_response_has_text_and_usage(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="fake/tokens-3", input="Hi there", instructions="Be brief")
    assert answer.output_text == "word0 word1 word2"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 3)


async def test_a_streamed_response_is_numbered_without_gaps_and_ends_completed(client: openai.AsyncOpenAI) -> None:
    opened = await client.responses.create(model="fake/tokens-3", input="Hi", stream=True)
    events = [event async for event in opened]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "word0 word1 word2"
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage is not None
    assert events[-1].response.usage.output_tokens == 3


async def test_a_streamed_response_calls_a_function(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(
        model="fake/tool-call",
        input="Weather?",
        tools=[
            {
                "type": "function",
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                "strict": False,
            }
        ],
    ) as opened:
        final = await opened.get_final_response()
    assert final.output[0].type == "function_call"
    assert final.output[0].arguments == '{"city":"text"}'
