"""Requests for responses: what is bounded passes, everything else is refused by its name."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest

from core.errors import InvalidInput, TooLarge
from llm_gateway.limits.estimate import Estimate, ModelBounds, UnboundedCall
from llm_gateway.wire.format import FieldRefused, FormatRequest
from llm_gateway.wire.openai_responses import RESPONSES
from tests.support.untraced import cpu_s

BOUNDS = ModelBounds(context_window=100_000, max_output_tokens=4096)
SEES = ModelBounds(context_window=100_000, max_output_tokens=4096, image_tokens=1500)
PICTURE = {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64," + "A" * 4000}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}


def parse(**fields: object) -> FormatRequest:
    raw = orjson.dumps({"model": "m", "input": "hi", **fields})
    return RESPONSES.parse(raw, {}, max_json_depth=64)


def estimate(bounds: ModelBounds = BOUNDS, **fields: object) -> Estimate:
    return RESPONSES.estimate(parse(**fields), bounds)


def said(*parts: object, **fields: object) -> list[object]:
    return [{"role": "user", "content": list(parts), **fields}]


CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the weather in Basel?"},
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAABn"},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}", "status": "completed"},
    {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    {"type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "basel"},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "sunny"}]},
    {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
        {"type": "output_text", "text": "Sunny.", "annotations": []}, {"type": "refusal", "refusal": "no"}
    ]},
]  # fmt: skip


def test_a_conversation_that_is_sent_whole_passes() -> None:
    tools = [FUNCTION, {"type": "custom", "name": "g"}, {"type": "namespace", "name": "n", "tools": [FUNCTION]}]
    request = parse(
        input=CONVERSATION,
        tools=tools,
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        instructions="Be kind.",
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "x", "schema": {"camelCase": 1}}},
        include=["reasoning.encrypted_content"],
        previous_response_id=None,
        background=False,
        stream=True,
        a_field_of_tomorrow={"Deep": [1]},
    )
    assert (request.model, request.stream, request.wants_usage) == ("m", True, True)
    assert request.body["input"] == CONVERSATION


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("conversation", {"id": "conv_1"}),
        ("prompt", {"id": "pmpt_1", "variables": {}}),
        ("background", True),
        ("background", "yes"),
        ("context_management", [{"type": "compaction"}]),
        ("moderation", {"model": "omni-moderation-latest"}),
        ("messages", [{"role": "user", "content": "hi"}]),
        ("n", 4),
        ("max_tokens", 5),
        ("max_completion_tokens", 5),
    ],
)
def test_what_this_gateway_cannot_see_or_bound_is_refused_with_a_sentence(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(**{field: value})
    assert (refused.value.code, refused.value.details) == ("unsupported_parameter", {"param": field})
    assert f"`{field}`" in refused.value.message


@pytest.mark.parametrize(
    "kind",
    [
        "web_search", "web_search_preview", "web_search_preview_2025_03_11", "file_search", "code_interpreter",
        "computer_use_preview", "computer", "image_generation", "mcp", "shell", "local_shell", "apply_patch",
        "tool_search", "programmatic_tool_calling", "namespace2", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
def test_tools_that_the_client_does_not_run_are_refused_by_name(kind: str, *, nested: bool) -> None:
    tools: list[object] = [FUNCTION, {"type": kind}]
    if nested:
        tools = [{"type": "namespace", "name": "n", "description": "d", "tools": tools}]
    with pytest.raises(FieldRefused, match=f"`{kind}`") as refused:
        parse(tools=tools)
    assert refused.value.code == "unsupported_tool"
    assert refused.value.details == {"param": "tools[0].tools[1]" if nested else "tools[1]"}


def test_so_are_tools_chosen_without_being_listed() -> None:
    for choice in ({"type": "mcp", "server_label": "x"}, {"type": "allowed_tools", "tools": [{"type": "web_search"}]}):
        with pytest.raises(FieldRefused):
            parse(tool_choice=choice)


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_1"},
        {"id": "rs_1"},
        {"type": "message", "id": "msg_1"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"},
        {"type": "code_interpreter_call", "id": "ci_1"},
        {"type": "mcp_call", "id": "mcp_1"},
        {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "http://x"}},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "user", "content": [{"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"}]},
        {"role": "user", "content": [{"type": "input_file", "file_url": "https://x/y.pdf"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]},
        {"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_id": "file_1"}]},
        {"type": "reasoning", "summary": [{"type": "input_image", "image_url": "data:x"}]},
    ],
)
def test_items_that_bring_what_nobody_sees_are_refused(item: object) -> None:
    with pytest.raises(UnboundedCall) as refused:
        parse(input=[{"role": "user", "content": "hi"}, item])
    assert refused.value.code == "unsupported_content"
    assert str((refused.value.details or {})["param"]).startswith("input[1]")


WRONG: list[Any] = [0, 1.5, True, "", "text", [], [1], [[]], {}, {"a": 1}, [{"type": 3}], [{"type": []}], [None]]


@pytest.mark.parametrize(
    "field",
    [
        "model", "input", "instructions", "tools", "tool_choice", "stream", "store", "stream_options", "reasoning",
        "text", "max_output_tokens", "service_tier", "include", "metadata", "truncation", "background", "prompt",
    ],
)  # fmt: skip
def test_a_wrong_type_in_any_field_passes_or_is_the_callers_mistake(field: str) -> None:
    for value in WRONG:
        with suppress(InvalidInput):
            request = parse(**{field: value})
            RESPONSES.estimate(request, SEES)
            RESPONSES.check_translatable(request)


@pytest.mark.parametrize("field", ["type", "role", "content", "output", "summary", "encrypted_content", "id"])
@pytest.mark.parametrize("kind", ["message", "reasoning", "function_call", "function_call_output", None])
def test_so_does_one_in_any_field_of_an_item(kind: str | None, field: str) -> None:
    for value in WRONG:
        item = {"type": kind, "role": "user", "content": "hi", field: value}
        for given in ([item], [{"role": "user", "content": [{"type": "input_text", "text": "x", field: value}]}]):
            with suppress(InvalidInput):
                RESPONSES.estimate(parse(input=given), SEES)


@pytest.mark.parametrize(
    "fields",
    [
        {"Model": "gpt-5-pro"},
        {"INPUT": "hi"},
        {"N": 4},
        {"max_output_to\u212aens": 10**6},
        {"Tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "name": "f", "Type": "web_search"}]},
        {"tools": [{"type": "namespace", "tools": [{"type": "function", "Type": "mcp"}]}]},
        {"tool_choice": {"type": "function", "Type": "mcp"}},
        {"input": [{"role": "user", "content": "hi", "Content": [PICTURE]}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "", "Type": "input_image"}]}]},
        {"input": [{"type": "message", "role": "user", "content": "hi", "TYPE": "item_reference"}]},
        {"reasoning": {"Mode": "pro"}},
        {"stream_options": {"Include_Obfuscation": True}},
    ],
)
def test_names_in_another_spelling_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(FieldRefused, match="lower case"):
        parse(**fields)


def test_reasoning_of_another_price_is_refused() -> None:
    with pytest.raises(UnboundedCall):
        parse(reasoning={"mode": "pro"})


@pytest.mark.parametrize("field", ["api_base", "extra_headers", "aws_region_name", "models", "mock_response"])
def test_the_operators_business_is_refused(field: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        parse(**{field: "x"})
    assert refused.value.code == "forbidden_field"


@pytest.mark.parametrize(
    "fields",
    [
        {"modalities": ["audio"]},
        {"web_search_options": {}},
    ],
)
def test_what_costs_more_than_its_tokens_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UnboundedCall):
        estimate(**fields)


def test_the_service_that_is_asked_for_is_part_of_the_estimate() -> None:
    assert estimate(service_tier="priority").service == "priority"


def test_the_prompt_is_bounded_by_all_its_bytes() -> None:
    plain = estimate().prompt_tokens
    word = "ß" * 500
    for fields in (
        {"input": word},
        {"instructions": word},
        {"input": said({"type": "input_text", "text": word})},
        {"input": [*CONVERSATION, {"type": "function_call_output", "call_id": "c", "output": word}]},
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": word}]},
        {"input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": word}]}]},
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": word}]},
        {"tools": [{**FUNCTION, "description": word}]},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"title": word}}}},
    ):
        assert estimate(**fields).prompt_tokens >= plain + 990


def test_tools_bring_instructions_of_the_vendor() -> None:
    assert estimate(tools=[FUNCTION]).prompt_tokens > estimate().prompt_tokens + 1000


def test_a_picture_counts_for_what_the_model_says_and_not_for_its_bytes() -> None:
    without = estimate(SEES, input=said({"type": "input_text", "text": "x"})).prompt_tokens
    one = estimate(SEES, input=said({"type": "input_text", "text": "x"}, PICTURE)).prompt_tokens
    assert 1500 <= one - without < 1700
    output = [{"type": "function_call_output", "call_id": "c", "output": [PICTURE, PICTURE]}]
    assert estimate(SEES, input=output).prompt_tokens > 3000


def test_a_model_without_pictures_takes_none() -> None:
    with pytest.raises(UnboundedCall) as refused:
        estimate(BOUNDS, input=said(PICTURE))
    assert refused.value.details == {"param": "input[0].content[0]"}


def test_a_prompt_never_counts_for_more_than_the_model_can_read() -> None:
    assert estimate(input="x" * 200_000).prompt_tokens == 100_000


@pytest.mark.parametrize(("asked", "expected"), [(None, 4096), (16, 16), (10**18, 4096)])
def test_output_is_what_was_asked_clamped_to_what_the_model_can(asked: int | None, expected: int) -> None:
    bound = estimate(max_output_tokens=asked)
    assert (bound.max_output_tokens, bound.output_tokens, bound.choices) == (expected, expected, 1)


@pytest.mark.parametrize("value", [0, -1, 1.5, "100", True, [], {}])
def test_a_maximum_that_is_no_positive_whole_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        estimate(max_output_tokens=value)
    assert refused.value.details == {"param": "max_output_tokens"}


def test_whoever_translates_gets_no_addresses_to_fetch() -> None:
    RESPONSES.check_translatable(parse(input=said(PICTURE)))
    for address in ("https://example.test/x.png", " http://169.254.169.254/", "file:///etc/passwd", "x"):
        with pytest.raises(InvalidInput, match="data: URLs"):
            RESPONSES.check_translatable(parse(input=said({**PICTURE, "image_url": address})))


def test_to_bound_ninety_thousand_items_costs_little_more_than_to_read_them() -> None:
    raw = orjson.dumps({"model": "m", "input": [{"role": "user", "content": "x"}] * 90_000})

    def bounded() -> Estimate:
        return RESPONSES.estimate(RESPONSES.parse(raw, {}, max_json_depth=64), BOUNDS)

    assert bounded().prompt_tokens == BOUNDS.context_window
    assert cpu_s(bounded) < 20 * cpu_s(lambda: json.loads(raw))  # 5 times, in a fifth of a second


def test_more_items_than_a_body_may_have_are_refused() -> None:
    with pytest.raises(TooLarge):
        parse(input=[{"role": "user", "content": "x"}] * 110_000)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(metadata=orjson.loads(b'{"a":' * 70 + b"1" + b"}" * 70))
    assert refused.value.code == "json_too_deep"


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b"{", b'{"model": "m", "model": "n", "input": "x"}'])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        RESPONSES.parse(raw, {}, max_json_depth=64)
