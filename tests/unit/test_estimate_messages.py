"""What a message in Anthropic's format can use at most; what cannot be bounded is refused by its place."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidInput
from llm_gateway.limits.estimate import Estimate, ModelBounds, UnboundedCall
from llm_gateway.limits.estimate_messages import estimate_messages

BOUNDS = ModelBounds(context_window=200_000, max_output_tokens=4096, image_tokens=1600)
BLIND = ModelBounds(context_window=200_000, max_output_tokens=4096)
Json = dict[str, Any]  # blocks and requests of many shapes


def said(*blocks: object) -> list[Json]:
    return [{"role": "user", "content": list(blocks) or "hi"}]


def estimate(bounds: ModelBounds = BOUNDS, **fields: object) -> Estimate:
    return estimate_messages({"model": "m", "max_tokens": 10, "messages": said(), **fields}, bounds)


def source(kind: str, **fields: object) -> Json:
    return {"type": kind, **fields}


WORD = "x" * 1000
PICTURE = {"type": "image", "source": source("base64", data="A" * 50_000)}
CACHED = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"system": WORD},
        {"system": [{"type": "text", "text": WORD}]},
        {"messages": [{"role": "user", "content": WORD}]},
        {"messages": said({"type": "thinking", "thinking": WORD, "signature": "s"})},
        {"messages": said({"type": "redacted_thinking", "data": WORD})},
        {"messages": said({"type": "tool_use", "id": "1", "name": "f", "input": {"a": WORD}})},
        {"messages": said({"type": "tool_result", "tool_use_id": "1", "content": WORD})},
        {"messages": said({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": WORD}]})},
        {"messages": said({"type": "search_result", "title": WORD, "content": []})},
        {"messages": said({"type": "document", "source": source("text", data=WORD)})},
        {"messages": said({"type": "document", "source": source("content", content=[{"type": "text", "text": WORD}])})},
        {"tools": [{"name": "f", "description": WORD, "input_schema": {}}]},
        {"output_config": {"format": {"schema": {"description": WORD}}}},
    ],
)
def test_everything_that_reaches_the_model_counts(fields: Json) -> None:
    assert estimate(**fields).prompt_tokens >= estimate().prompt_tokens + 900


@pytest.mark.parametrize("kind", [["text"], {"type": "text"}, 1])
def test_a_kind_that_is_no_text_is_refused_by_its_place(kind: object) -> None:
    for block in (
        {"type": kind},
        {"type": "image", "source": {"type": kind}},
        {"type": "document", "source": {"type": kind}},
    ):
        with pytest.raises(UnboundedCall) as refused:
            estimate(messages=said(block))
        assert refused.value.details == {"param": "messages[0].content[0]"}


def test_pictures_count_as_the_model_says_wherever_they_are() -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": [PICTURE, PICTURE]}
    assert 3200 < estimate(messages=said(result)).prompt_tokens - estimate().prompt_tokens < 3400


def test_a_pdf_may_fill_the_model() -> None:
    pdf = {"type": "document", "source": source("base64", data="A", media_type="application/pdf")}
    assert estimate(messages=said(pdf)).prompt_tokens == 200_000


def test_vendors_own_tools_bring_instructions() -> None:
    bash = estimate(tools=[{"type": "bash_20250124", "name": "bash"}])
    assert bash.prompt_tokens > estimate(tools=[{"name": "bash"}]).prompt_tokens + 2000


@pytest.mark.parametrize(
    ("fields", "classes"),
    [
        ({}, []),
        (CACHED, [("cache_write_5m", "cache_control")]),
        ({"system": [{"type": "text", "text": "x", **CACHED}]}, [("cache_write_5m", "system[0]")]),
        ({"tools": [{"name": "f", **CACHED}]}, [("cache_write_5m", "tools[0]")]),
        (
            {"messages": said({"type": "text", "text": "x"}, PICTURE | CACHED)},
            [("cache_write_5m", "messages[0].content[1]")],
        ),
        (
            {
                "messages": said(
                    {
                        "type": "tool_result",
                        "content": [{"type": "text", "text": "", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
                        **CACHED,
                    }
                )
            },
            [("cache_write_5m", "messages[0].content[0]"), ("cache_write_1h", "messages[0].content[0].content[0]")],
        ),
    ],
)
def test_whatever_is_written_to_a_cache_is_seen(fields: Json, classes: list[tuple[str, str]]) -> None:
    assert list(estimate(**fields).classes) == classes


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": said({"type": "video"})}, "messages[0].content[0]"),
        ({"messages": said("hi")}, "messages[0].content[0]"),
        ({"messages": said({"type": "image", "source": source("file", file_id="f")})}, "messages[0].content[0]"),
        ({"messages": said({"type": "document", "source": source("file", file_id="f")})}, "messages[0].content[0]"),
        ({"messages": said({"type": "document"})}, "messages[0].content[0]"),
        ({"messages": said({"type": "container_upload", "file_id": "f"})}, "messages[0].content[0]"),
        ({"tools": {"name": "f"}}, "tools"),
        ({"tools": [{"type": "web_search_20260318"}]}, "tools[0]"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"service_tier": 1}, "service_tier"),
        ({"cache_control": {"ttl": "1d"}}, "cache_control"),
    ],
)
def test_what_has_no_bound_is_refused_by_its_place(fields: Json, param: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        estimate(**fields)
    assert refusal.value.details == {"param": param}


@pytest.mark.parametrize("block", [PICTURE, {"type": "document", "source": source("url", url="https://x/y.pdf")}])
def test_a_blind_model_takes_no_pictures_and_no_pages(block: Json) -> None:
    with pytest.raises(UnboundedCall):
        estimate(BLIND, messages=said(block))


def test_output_is_what_was_asked_clamped_to_what_the_model_can() -> None:
    asked = [estimate(max_tokens=tokens).max_output_tokens for tokens in (None, 0, 7, 10**9)]
    assert asked == [4096, 0, 7, 4096]
    thinking = estimate(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1500})
    assert (thinking.output_tokens, thinking.choices) == (2000, 1)
    assert estimate(service_tier="auto").service == "auto"
