"""What a prompt has as its model reads it: OpenAI's own counts where they are known, and never below them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway import aftercount
from llm_gateway.aftercount import AfterCount, tokenizer_for
from llm_gateway.catalog import Catalog
from llm_gateway.limits.estimate import Estimate
from llm_gateway.limits.exact_prompt import tokenizer_of
from llm_gateway.limits.ledger import Usage
from llm_gateway.limits.read_prompt import read_prompt_tokens
from llm_gateway.limits.tool_declarations import declared
from llm_gateway.plan import Hop
from llm_gateway.usage import Counted
from llm_gateway.wire.openai_answer import ChatStream
from tests.support.catalogs import catalog_of
from tests.unit.test_gateway_upkeep import LeaseLedger, a_call, pipeline_with

Json = dict[str, Any]  # requests are JSON of many shapes


def function(name: str, description: str | None = None, **parameters: object) -> Json:
    told = {} if description is None else {"description": description}
    return {"type": "function", "function": {"name": name, **told, "parameters": {"type": "object", **parameters}}}


# OpenAI cookbook, "How to count tokens with tiktoken": its examples, and what the API counted for them.
WEATHER = function(
    "get_current_weather",
    "Get the current weather in a given location",
    properties={
        "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
        "unit": {
            "type": "string",
            "description": "The unit of temperature to return",
            "enum": ["celsius", "fahrenheit"],
        },
    },
    required=["location"],
)
ASSISTANT = "You are a helpful assistant that can answer to questions about the weather."
QUESTION = "What's the weather like in San Francisco?"
SYNERGIES: list[Json] = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant "
        "that translates corporate jargon into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth "
        "to touch base on opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]


def user(content: object) -> list[Json]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("body", "tokenizer", "tokens"),
    [
        ({"messages": SYNERGIES}, "o200k_base", 124),
        ({"messages": SYNERGIES}, "cl100k_base", 129),
        (
            {"messages": [{"role": "system", "content": ASSISTANT}, *user(QUESTION)], "tools": [WEATHER]},
            "o200k_base",
            101,
        ),
        ({"messages": user("Hi")}, "o200k_base", 8),
    ],
)
def test_openais_own_examples_have_the_tokens_that_openai_counted(body: Json, tokenizer: str, tokens: int) -> None:
    sent = {"model": "gpt-4o-mini", "max_tokens": 100, "stream": True, "temperature": 0.5, "user": "u" * 64, **body}
    assert read_prompt_tokens(sent, tokenizer, template_known=True) == tokens


@pytest.mark.parametrize(
    "body",
    [
        {"messages": user([{"type": "text", "text": "Hi"}])},
        {"messages": user([{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}])},
        {"messages": user([{"type": "image_url", "image_url": {"url": "data:," + "A" * 9999}}, {"text": "Hi"}])},
        {"messages": user([{"type": "image", "source": {"type": "base64", "data": "A" * 9999}}, {"text": "Hi"}])},
        {"messages": user([{"type": "document", "source": {"type": "base64", "data": "A" * 99}}, {"text": "Hi"}])},
        {"messages": user([{"type": "document", "source": {"type": "text", "data": "Hi"}}])},
        {"messages": user([{"type": "document", "source": {"type": "content", "content": [{"text": "Hi"}]}}])},
        {"messages": user([{"type": "input_audio", "input_audio": {"data": "A" * 99}}, {"text": "Hi"}])},
        {"messages": user([{"type": "tool_result", "tool_use_id": "t" * 40, "content": [{"text": "Hi"}]}])},
        {"messages": [{"role": "tool", "tool_call_id": "t" * 40, "content": "Hi"}]},
        {"input": "Hi", "text": {"format": {"type": "text"}}, "instructions": None},
        {"input": user([{"type": "input_text", "text": "Hi"}])},
        {"input": [{"type": "function_call_output", "call_id": "t" * 40, "output": "Hi"}]},
        {"messages": user("Hi"), "tools": [], "response_format": {"type": "json_object"}},
    ],
)
def test_the_same_words_count_the_same_in_every_format(body: Json) -> None:
    assert read_prompt_tokens(body, "o200k_base", template_known=True) == 8


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [*user("Hi"), {"role": "assistant", "tool_calls": [{"function": {"arguments": "word " * 50}}]}]},
        {"messages": user([{"type": "tool_use", "name": "f", "input": {"a": "word " * 50}}])},
        {"messages": user([{"type": "something_of_tomorrow", "words": "word " * 50}])},
        {"messages": user("Hi"), "system": "word " * 50},
        {"messages": user("Hi"), "system": [{"type": "text", "text": "word " * 50}]},
        {"input": "Hi", "instructions": "word " * 50},
        {"messages": user("Hi"), "tools": [function("f", "word " * 50)]},
        {"messages": user("Hi"), "tools": [function("f", properties={"a": {"anyOf": [{"const": "word " * 50}]}})]},
        {"messages": user("Hi"), "tools": [{"name": "f", "input_schema": {"$defs": {"x": "word " * 50}}}]},
        {"messages": user("Hi"), "tools": [{"type": "custom", "name": "f", "format": {"definition": "word " * 50}}]},
        {"messages": user("Hi"), "response_format": {"json_schema": {"schema": {"title": "word " * 50}}}},
        {"input": "Hi", "text": {"format": {"schema": {"title": "word " * 50}}}},
        {"input": [{"role": "user", "content": "Hi"}, {"type": "reasoning", "summary": [{"text": "word " * 50}]}]},
        {"messages": ["word " * 50]},
    ],
)
def test_whatever_a_model_may_read_counts(body: Json) -> None:
    assert 58 <= read_prompt_tokens(body, "o200k_base", template_known=True) < 110


def test_an_unknown_template_is_bounded() -> None:
    assert read_prompt_tokens({"messages": user("Hi")}, "o200k_base", template_known=False) == 64 + 16 + 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("type", "properties", "items", "enum", "required", "description", "function", "parameters", "name")


def test_what_is_within_an_argument_is_declared_too() -> None:
    inner = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    assert "inner?: {\n  x: number,\n},\n" in declared([function("f", properties={"inner": inner})])


@given(st.lists(JSON | st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4), max_size=3), JSON)
@settings(max_examples=60)
def test_no_request_is_too_odd_to_count(tools: list[object], content: object) -> None:
    declared(tools)
    body = {"messages": [{"role": "user", "content": content}, content], "tools": tools, "system": content}
    assert read_prompt_tokens(body, "cl100k_base", template_known=True) >= 3


MODELS = "".join(
    f"""
[[models]]
name = "{name}"
context_window = 100_000
max_output_tokens = 100
{known}
[[models.deployments]]
provider = "{provider}"
base_url = "http://x/v1"
model = "{model}"
price_usd_per_million_tokens = {{ input = 1, output = 1 }}
"""
    for name, known, provider, model in (
        ("named", "", "openai", "gpt-5-mini"),
        ("older", "", "openai", "gpt-3.5-turbo"),
        ("of-tomorrow", "", "openai", "tomorrow"),
        ("said", 'tokenizer = "o200k_base"', "vllm", "anything"),
        ("elsewhere", "", "vllm", "gpt-5-mini"),
    )
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(tmp_path_factory.mktemp("catalog"), MODELS, {"OPENAI_API_KEY": "k"})


def hop(catalog: Catalog, name: str, *, media_tokens: int = 0, text_bytes: int = 0) -> Hop:
    model = catalog.find(name)
    estimate = Estimate(
        prompt_tokens=5000,
        max_output_tokens=100,
        choices=1,
        fixed_tokens=80,
        media_tokens=media_tokens,
        text_bytes=text_bytes,
    )
    return Hop(model, model.deployments[0], estimate)


def test_a_vocabulary_is_known_by_what_the_catalogue_says_or_by_the_name_of_openais_model(catalog: Catalog) -> None:
    names = ("named", "older", "of-tomorrow", "said", "elsewhere")
    found = [tokenizer_for(hop(catalog, name)) for name in names]
    assert found == ["o200k_base", "cl100k_base", None, "o200k_base", None]
    assert tokenizer_of("text-davinci-003") is None  # known by name, and not installed


def stream(*texts: str) -> ChatStream:
    made = ChatStream(hide_usage=True, held_tokens=100)
    for text in texts:
        made.feed(b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % text.encode())
    return made


async def test_prompt_pictures_and_output_are_counted(catalog: Catalog) -> None:
    after = AfterCount()
    body = {"messages": user("Hi")}
    counting = after.counting(hop(catalog, "named", media_tokens=700, text_bytes=30), body, stream("one two", " three"))
    assert counting is not None
    assert await counting == Counted(prompt_tokens=708, output_tokens=3)
    larger = after.counting(hop(catalog, "named", media_tokens=9000, text_bytes=30), body, stream())
    assert larger is not None
    assert await larger == Counted(prompt_tokens=5000, output_tokens=0)  # never more than was held for


async def test_no_more_waits_than_is_bounded_and_what_waited_makes_room(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aftercount, "_MOST_WAITING_BYTES", 1000)
    after, body = AfterCount(), {"messages": user("Hi")}
    first = after.counting(hop(catalog, "named", text_bytes=900), body, stream())
    assert first is not None
    assert after.counting(hop(catalog, "named", text_bytes=900), body, stream()) is None
    await first
    again = after.counting(hop(catalog, "named", text_bytes=900), body, stream())
    assert again is not None
    task = asyncio.create_task(again)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    third = after.counting(hop(catalog, "named", text_bytes=900), body, stream())
    assert third is not None
    third.close()


class Books(LeaseLedger):
    """Keeps what was settled."""

    def __init__(self) -> None:
        super().__init__()
        self.settled: list[Usage] = []

    async def settle(self, request_id: str, usage: Usage) -> None:
        self.settled.append(usage)


@pytest.mark.parametrize("installed", [True, False])
async def test_a_call_that_was_left_costs_what_was_counted_or_the_guess_where_that_fails(
    installed: bool, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books()
    pipeline = pipeline_with(catalog, books)
    call = a_call(pipeline, "left", age_s=0.0, model="said")
    call.asking(hop(catalog, "said", text_bytes=4920))
    call.stream = stream("one two", " three")
    if not installed:
        monkeypatch.setattr("llm_gateway.limits.exact_prompt.find_spec", lambda _: None)
        monkeypatch.setattr("llm_gateway.limits.exact_prompt._read", {})
    call.abandon("client_gone")
    call.abandon("cut")
    assert call.counted is not None
    await call.counted.wait()
    await call.resolved()
    [used] = books.settled
    assert used == call.usage
    assert (used.estimated, used.outcome, used.endpoint) == (True, "client_gone", "chat")
    assert (used.counts.input, used.counts.output) == ((64 + 16, 3) if installed else (1667, 2))


def test_a_folder_without_the_vocabulary_counts_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("llm_gateway.limits.exact_prompt.find_spec", lambda _: None)
    assert tokenizer_of("gpt-5-mini") is None
