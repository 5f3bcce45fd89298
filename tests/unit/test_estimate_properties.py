"""For any request in any format, the estimate is at least what tiktoken counts of what a chat template would hold.

Counted as OpenAI documents it: three tokens a message, one for its role, three for the answer's opening; tools as the
TypeScript that its models are told, calls of tools as their name and arguments.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.limits.estimate import ModelBounds
from llm_gateway.limits.estimate_chat import estimate_chat
from llm_gateway.limits.estimate_messages import estimate_messages
from llm_gateway.limits.exact_prompt import exact_prompt_tokens
from llm_gateway.wire.format import FormatRequest
from llm_gateway.wire.openai_embeddings import EMBEDDINGS
from llm_gateway.wire.openai_responses import RESPONSES

Json = dict[str, Any]  # requests are JSON of many shapes
BOUNDS = ModelBounds(context_window=10**9, max_output_tokens=100)
SCRIPTS = (
    "abc xyz",
    "äöüß éèñ",
    "Привет мир",
    "漢字かなカナ",
    "한국어",
    "العربية",
    "हिन्दी",
    "ไทย",
    "𒐫𝔘",
    "👩‍👩‍👧🏽🇺🇳",
    '{}[]"\\\n\t',
    "\u202e\u0000",
)

WORDS = st.sampled_from(SCRIPTS).flatmap(lambda script: st.text(alphabet=script, max_size=120))
TEXTS = WORDS | st.text(max_size=200) | st.sampled_from(SCRIPTS).map(lambda script: script * 20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.from_regex(r"[a-z_]{1,20}", fullmatch=True)
SCHEMAS = st.fixed_dictionaries(
    {
        "type": st.just("object"),
        "properties": st.dictionaries(
            NAMES, st.fixed_dictionaries({"type": st.just("string"), "description": TEXTS}), max_size=3
        ),
    }
)
TOOLS = st.lists(st.fixed_dictionaries({"name": NAMES, "description": TEXTS, "parameters": SCHEMAS}), max_size=3)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), max_size=2)
TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), TEXTS, CALLS), min_size=1, max_size=4)


def rendered(turns: list[tuple[str, str, list[tuple[str, Json]]]], tools: list[Json]) -> list[str]:
    """The texts that the model reads, one for each stretch between two marks of the template."""
    texts = [text for _, text, _ in turns]
    for _, _, calls in turns:
        texts += [f"{name}({orjson.dumps(arguments).decode()})" for name, arguments in calls]
    for tool in tools:
        lines = [f"// {tool['description']}", f"type {tool['name']} = (_: {{"]
        for name, schema in tool["parameters"]["properties"].items():
            lines += [f"// {schema['description']}", f"{name}?: {schema['type']},"]
        texts.append("\n".join([*lines, "}) => any;"]))
    return texts


def counted(texts: list[str], messages: int, tokenizer: str) -> int:
    """With the four tokens that exact_prompt_tokens allows for each text, and the one for each piece, taken off."""
    return 3 + 4 * messages + sum(exact_prompt_tokens(text, tokenizer) - 4 - bool(text) for text in texts)


def chat(turns: list[tuple[str, str, list[tuple[str, Json]]]], tools: list[Json]) -> Json:
    messages = [
        {
            "role": role,
            "content": text,
            **({"tool_calls": [_chat_call(name, arguments) for name, arguments in calls]} if calls else {}),
        }
        for role, text, calls in turns
    ]
    return {"model": "m", "messages": messages, "tools": [{"type": "function", "function": tool} for tool in tools]}


def _chat_call(name: str, arguments: Json) -> Json:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": orjson.dumps(arguments).decode()}}


def messages(turns: list[tuple[str, str, list[tuple[str, Json]]]], tools: list[Json]) -> Json:
    blocks = [
        {
            "role": "user" if role == "user" else "assistant",
            "content": [
                {"type": "text", "text": text},
                *({"type": "tool_use", "id": "c", "name": name, "input": arguments} for name, arguments in calls),
            ],
        }
        for role, text, calls in turns
    ]
    own = [{"name": t["name"], "description": t["description"], "input_schema": t["parameters"]} for t in tools]
    return {"model": "m", "max_tokens": 10, "messages": blocks, "tools": own}


def responses(turns: list[tuple[str, str, list[tuple[str, Json]]]], tools: list[Json]) -> Json:
    items: list[Json] = []
    for role, text, calls in turns:
        kind = "output_text" if role == "assistant" else "input_text"
        role_here = "assistant" if role == "assistant" else "user"
        items.append({"type": "message", "role": role_here, "content": [{"type": kind, "text": text}]})
        for name, arguments in calls:
            written = orjson.dumps(arguments).decode()
            items.append({"type": "function_call", "call_id": "c", "name": name, "arguments": written})
    return {"model": "m", "input": items, "tools": [{"type": "function", **tool} for tool in tools]}


@settings(max_examples=80)
@given(TURNS, TOOLS, st.sampled_from(["cl100k_base", "o200k_base"]))
def test_no_request_is_more_than_its_estimate_whether_bounded_or_counted(
    turns: list[tuple[str, str, list[tuple[str, Json]]]], tools: list[Json], tokenizer: str
) -> None:
    really = counted(rendered(turns, tools), len(turns), tokenizer)
    request = FormatRequest(body=responses(turns, tools), model="m", stream=False)
    for body, estimate in (
        (chat(turns, tools), estimate_chat(chat(turns, tools), BOUNDS)),
        (messages(turns, tools), estimate_messages(messages(turns, tools), BOUNDS)),
        (request.body, RESPONSES.estimate(request, BOUNDS)),
    ):
        assert really <= estimate.prompt_tokens
        assert really <= estimate.counted(exact_prompt_tokens(body, tokenizer)).prompt_tokens


@pytest.mark.parametrize("script", SCRIPTS)
def test_long_texts_of_any_script_are_counted_to_at_least_what_they_are(script: str) -> None:
    text = script * 4000
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    bound = estimate_chat(body, BOUNDS)
    for tokenizer in ("cl100k_base", "o200k_base"):
        really = counted([text], 1, tokenizer)
        exact = bound.counted(exact_prompt_tokens(body, tokenizer)).prompt_tokens
        assert really <= exact <= bound.prompt_tokens


@settings(max_examples=60)
@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=4), st.sampled_from(["cl100k_base", "o200k_base"]))
def test_no_embedding_is_more_than_its_estimate_whether_bounded_or_counted(texts: list[str], tokenizer: str) -> None:
    really = sum(exact_prompt_tokens(text, tokenizer) - 5 for text in texts)
    for given_input in (texts, texts[0]):
        request = FormatRequest(body={"model": "m", "input": given_input}, model="m", stream=False)
        estimate = EMBEDDINGS.estimate(request, BOUNDS)
        needed = really if given_input is texts else exact_prompt_tokens(texts[0], tokenizer) - 5
        assert needed <= estimate.prompt_tokens
        assert needed <= estimate.counted(exact_prompt_tokens(request.body, tokenizer)).prompt_tokens
        assert estimate.output_tokens == 0


def test_tokens_that_are_counted_already_are_what_they_are() -> None:
    request = FormatRequest(body={"model": "m", "input": [[1, 2, 3], [4]]}, model="m", stream=False)
    assert 4 <= EMBEDDINGS.estimate(request, BOUNDS).prompt_tokens < 80
