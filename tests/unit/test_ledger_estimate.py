"""No call uses more than its estimate; what has no bound is refused."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidInput
from llm_gateway.limits.estimate import MOST_CHOICES, ModelBounds, UnboundedCall
from llm_gateway.limits.estimate_chat import estimate_chat

BOUNDS = ModelBounds(context_window=100_000, max_output_tokens=4096)
SEES = ModelBounds(context_window=100_000, max_output_tokens=4096, image_tokens=1500)


def body(content: object = "hi", **fields: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}


@pytest.fixture(scope="module")
def encodings() -> Iterator[list[tiktoken.Encoding]]:
    """OpenAI's vocabularies from the files that litellm carries: nothing is downloaded, litellm is not imported."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(spec.origin).parent / "litellm_core_utils" / "tokenizers")
    yield [tiktoken.get_encoding(name) for name in ("cl100k_base", "o200k_base")]
    os.environ.pop("TIKTOKEN_CACHE_DIR")
    if before is not None:
        os.environ["TIKTOKEN_CACHE_DIR"] = before


@settings(max_examples=200)
@given(st.lists(st.text(max_size=400), min_size=1, max_size=4))
def test_bytes_bound_the_tokens_of_any_text(encodings: list[tiktoken.Encoding], texts: list[str]) -> None:
    """Counted as OpenAI documents it: three tokens a message, one for the role, three for the answer's opening."""
    messages = [{"role": "user", "content": text} for text in texts]
    bound = estimate_chat({"model": "m", "messages": messages}, BOUNDS).prompt_tokens
    for encoding in encodings:
        counted = 3 + sum(4 + len(encoding.encode(text, disallowed_special=())) for text in texts)
        assert counted <= bound


@pytest.mark.parametrize(
    "text", ["𒐫" * 300, "\u202e\u0000" * 200, "한자漢字" * 100, "{}[]\\\"'" * 200, "👩‍👩‍👧‍👦" * 100]
)
def test_bytes_bound_the_tokens_of_hostile_text(encodings: list[tiktoken.Encoding], text: str) -> None:
    bound = estimate_chat(body(text), BOUNDS).prompt_tokens
    assert all(len(encoding.encode(text, disallowed_special=())) <= bound for encoding in encodings)


def test_everything_that_reaches_the_model_counts() -> None:
    plain = estimate_chat(body(), BOUNDS).prompt_tokens
    word = "x" * 1000
    for fields in (
        {"tools": [{"type": "function", "function": {"name": "f", "description": word}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": word}}},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": word}}]}]},
        {"messages": [{"role": "user", "name": word, "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": word}]}]},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": word}]},
    ):
        assert estimate_chat({**body(), **fields}, BOUNDS).prompt_tokens >= plain + 900


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "name": "x" * 1000, "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}, "note": "x" * 1000}],
        },
    ],
)
def test_what_stands_beside_parts_counts_too(message: dict[str, object]) -> None:
    plain = estimate_chat(body(), SEES).prompt_tokens
    assert estimate_chat(body() | {"messages": [message]}, SEES).prompt_tokens >= plain + 900


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"max_pixels": 10**9}, "messages[0].content[0].max_pixels"),
        ({"image_url": {"url": "data:,", "vl_high_resolution_images": True}},
         "messages[0].content[0].image_url.vl_high_resolution_images"),
    ],
)  # fmt: skip
def test_nothing_changes_what_a_picture_counts_for(part: dict[str, object], param: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}, **part}
    with pytest.raises(UnboundedCall) as refused:
        estimate_chat(body() | {"messages": [{"role": "user", "content": [picture]}]}, SEES)
    assert refused.value.details == {"param": param}


def test_tools_bring_instructions_of_the_vendor() -> None:
    without = estimate_chat(body(), BOUNDS).prompt_tokens
    assert estimate_chat(body(tools=[{}]), BOUNDS).prompt_tokens > without + 1000
    assert estimate_chat(body(functions=[{}]), BOUNDS).prompt_tokens > without + 1000


def test_a_prompt_never_counts_for_more_than_the_model_can_read() -> None:
    assert estimate_chat(body("x" * 200_000), BOUNDS).prompt_tokens == 100_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 4096),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 10}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_tokens": None}, 4096),
        ({"max_tokens": 10**18}, 4096),
    ],
)
def test_output_is_what_was_asked_clamped_to_what_the_model_can(fields: dict[str, Any], expected: int) -> None:
    output = estimate_chat(body(**fields), BOUNDS)
    assert output.max_output_tokens == expected


def test_every_choice_writes_its_own_output() -> None:
    estimate = estimate_chat(body(max_tokens=100, n=3), BOUNDS)
    assert (estimate.choices, estimate.output_tokens) == (3, 300)
    assert estimate.tokens == estimate.prompt_tokens + 300
    assert estimate_chat(body(best_of=5, n=2), BOUNDS).choices == 5


def test_a_prediction_may_be_charged_as_output() -> None:
    prediction = {"type": "content", "content": "y" * 500}
    estimate = estimate_chat(body(max_tokens=100, prediction=prediction), BOUNDS)
    assert estimate.output_tokens >= 600


@pytest.mark.parametrize("value", [0, -1, 1.5, 1e308, "100", True, [], {}])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n", "best_of"])
def test_a_count_that_is_no_positive_whole_number_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as refusal:
        estimate_chat(body(**{field: value}), BOUNDS)
    assert refusal.value.details == {"param": field}


def test_more_choices_than_anybody_needs_are_refused() -> None:
    assert estimate_chat(body(n=MOST_CHOICES), BOUNDS).choices == MOST_CHOICES
    with pytest.raises(InvalidInput):
        estimate_chat(body(n=MOST_CHOICES + 1), BOUNDS)


def test_a_picture_counts_as_much_as_the_model_says_and_not_its_bytes() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000}}
    estimate = estimate_chat(body([{"type": "text", "text": "what is this?"}, picture, picture]), SEES)
    assert 3000 < estimate.prompt_tokens < 3500


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"type": "file", "file": {}},
        {"type": "video_url"},
        {"type": ["text"]},
        {},
        "text",
        None,
    ],
)
def test_content_without_a_bound_is_refused_by_place(part: object) -> None:
    with pytest.raises(UnboundedCall) as refusal:
        estimate_chat(body([{"type": "text", "text": "hi"}, part]), BOUNDS)
    assert (refusal.value.code, refusal.value.details) == ("unsupported_content", {"param": "messages[0].content[1]"})


@pytest.mark.parametrize(
    "fields",
    [
        {"web_search_options": {}},
        {"audio": {"voice": "alloy"}},
        {"modalities": ["text", "audio"], "stream": True},
        {"modalities": ["image"]},
        {"service_tier": ["flex"]},
        {"cache_control": {"type": "ephemeral", "ttl": "1d"}},
        {"cache_control": True},
    ],
)
def test_what_costs_more_than_its_tokens_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UnboundedCall) as refusal:
        estimate_chat({**body(), **fields}, BOUNDS)
    assert refusal.value.details == {"param": next(iter(fields))}


@pytest.mark.parametrize("tier", [None, "auto", "default", "flex", "priority"])
def test_the_service_that_is_asked_for_is_part_of_the_estimate(tier: str | None) -> None:
    estimate = estimate_chat(body(service_tier=tier, modalities=["text"]), BOUNDS)
    assert (estimate.service, estimate.most.service) == (tier, tier)


def test_sound_counts_apart_from_text_and_asks_for_its_own_price() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 40_000, "format": "mp3"}}
    estimate = estimate_chat(body([{"type": "text", "text": "what is said?"}, sound]), BOUNDS)
    assert estimate.prompt_tokens < 500
    assert estimate.audio_tokens == 1001  # thirty seconds at 8 kbit/s: 32 tokens a second
    assert estimate.tokens == estimate.prompt_tokens + 1001 + 4096
    assert estimate.classes == (("input_audio", "messages[0].content[1]"),)
    assert (estimate.most.audio_tokens, estimate.most.classes) == (1001, estimate.classes)


@pytest.mark.parametrize(
    "audio", [{}, "", {"data": "AA", "format": "opus"}, {"data": "AA", "format": []}, {"data": 5, "format": "wav"}]
)
def test_sound_whose_length_nobody_can_bound_is_refused(audio: object) -> None:
    with pytest.raises(UnboundedCall):
        estimate_chat(body([{"type": "input_audio", "input_audio": audio}]), BOUNDS)


def test_sound_may_be_written_where_it_has_a_price() -> None:
    estimate = estimate_chat(body(modalities=["text", "audio"], audio={"voice": "alloy"}), BOUNDS)
    assert estimate.classes == (("output_audio", "modalities"),)


def test_counting_the_text_leaves_what_is_no_text() -> None:
    estimate = estimate_chat(body([{"type": "text", "text": "x" * 9000}]), BOUNDS)
    counted = estimate.counted(1200)
    assert counted.prompt_tokens == estimate.fixed_tokens + 1200 < estimate.prompt_tokens
    assert counted.text_bytes == 0
    assert estimate.counted(10**9).prompt_tokens == estimate.prompt_tokens


@pytest.mark.parametrize("messages", [None, [], "hi", {"role": "user"}])
def test_a_call_without_messages_is_refused(messages: object) -> None:
    with pytest.raises(InvalidInput) as refusal:
        estimate_chat({"model": "m", "messages": messages}, BOUNDS)
    assert refusal.value.details == {"param": "messages"}


def test_a_message_that_is_no_object_is_refused_by_place() -> None:
    with pytest.raises(InvalidInput) as refusal:
        estimate_chat({"model": "m", "messages": [{"role": "user", "content": "hi"}, "hello"]}, BOUNDS)
    assert refusal.value.details == {"param": "messages[1]"}


@pytest.mark.parametrize("content", ["\ud800", 2**70])
def test_what_is_no_json_text_is_refused(content: object) -> None:
    with pytest.raises(InvalidInput, match="not valid Unicode"):
        estimate_chat(body(content), BOUNDS)
