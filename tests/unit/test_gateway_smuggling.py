"""What a request may not carry past the checks, because some server behind the gateway would obey it."""

import orjson
import pytest

from core.errors import InvalidInput
from llm_gateway.limits.estimate import ModelBounds, UnboundedCall
from llm_gateway.limits.estimate_chat import estimate_chat
from llm_gateway.wire.openai_answer import ChatStream
from llm_gateway.wire.openai_chat import parse_chat

BOUNDS = ModelBounds(context_window=100_000, max_output_tokens=4096)
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def request(**fields: object) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields})


# Kelvin's sign and the long s are k and s to a server that ignores case.
@pytest.mark.parametrize("field", ["Model", "MODEL", "N", "Max_Tokens", "max_to\u212aens", "me\u017fsages", "Tools"])
def test_a_field_in_another_spelling_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match="lower case") as refused:
        parse_chat(request(**{field: 16}), max_json_depth=64)
    assert refused.value.details == {"param": field}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "hi", "Content": [{"type": "image_url"}]},
        {"role": "user", "content": [{"type": "text", "text": "hi", "Type": "image_url"}]},
    ],
)
def test_so_is_one_within_a_message(message: object) -> None:
    with pytest.raises(InvalidInput, match="lower case"):
        parse_chat(request(messages=[message]), max_json_depth=64)


def test_so_is_one_within_a_tool() -> None:
    tool = {"type": "function", "function": {"name": "f"}, "Type": "web_search"}
    with pytest.raises(InvalidInput, match="lower case"):
        parse_chat(request(tools=[tool]), max_json_depth=64)


def test_a_part_without_its_list_is_refused() -> None:
    picture = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    with pytest.raises(InvalidInput, match="list of parts"):
        parse_chat(request(messages=[{"role": "user", "content": picture}]), max_json_depth=64)


def test_so_is_one_that_would_turn_off_the_report_of_usage() -> None:
    with pytest.raises(InvalidInput, match="lower case"):
        parse_chat(request(stream=True, stream_options={"Include_Usage": False}), max_json_depth=64)


def test_a_name_of_ten_megabytes_is_not_repeated_in_the_refusal() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_chat(request(**{"litellm_" + "x" * 10_000: 1}), max_json_depth=64)
    assert len(str(refused.value.details)) < 100


@pytest.mark.parametrize(
    "field",
    [
        "chat_template",
        "kv_transfer_params",
        "custom_logit_processor",
        "logits_processors",
        "lora_path",
        "google",
        "preset",
    ],
)
def test_what_servers_of_open_models_take_as_instructions_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_chat(request(**{field: "{% for _ in range(99999) %}x{% endfor %}"}), max_json_depth=64)
    assert refused.value.code == "forbidden_field"


@pytest.mark.parametrize(
    "fields",
    [
        CACHED,
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", **CACHED, "function": {"name": "f"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", **CACHED}}]}]},
        {"messages": [{"role": "user", "content": "hi", **CACHED}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **CACHED}]}]},
        {"tools": [{"type": "function", "function": {"name": "f"}, **CACHED}]},
        {"tools": [{"type": "function", "function": {"name": "f", **CACHED}}]},
    ],
)
def test_writing_to_a_cache_is_seen_wherever_a_vendor_would_look_for_it(fields: dict[str, object]) -> None:
    ((name, _),) = estimate_chat(orjson.loads(request(**fields)), BOUNDS).classes
    assert name == "cache_write_1h"


@pytest.mark.parametrize(
    "fields",
    [
        {"search_parameters": {"mode": "on"}},
        {"enable_search": True},
        {"data_sources": [{"type": "azure_search"}]},
        {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
    ],
)
def test_what_costs_more_than_the_tokens_of_the_call_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UnboundedCall):
        estimate_chat(orjson.loads(request(**fields)), BOUNDS)


def test_a_tool_may_have_a_parameter_of_that_name() -> None:
    parameters = {"type": "object", "properties": {"cache_control": {"type": "string"}, "camelCase": {}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    parsed = parse_chat(request(tools=tools), max_json_depth=64)
    assert estimate_chat(parsed.body, BOUNDS).prompt_tokens > 0


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "custom": {"input": "eight by"}}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "eight by"}]}]},
    ],
)
def test_output_in_every_shape_is_counted_so_that_leaving_early_is_not_free(delta: dict[str, object]) -> None:
    stream = ChatStream(hide_usage=True, held_tokens=100)
    stream.feed(b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n")
    assert (stream.chunks, stream.text_bytes) == (1, 8)
