"""Responses on their way back: bytes unchanged, usage read, a provider's own words about a failure not shown."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from core.errors import BadGateway
from llm_gateway.accounting import TokenCounts
from llm_gateway.wire.format import AnswerUnusable, StreamFault
from llm_gateway.wire.openai_responses_answer import ResponsesStream, read_response, read_usage

Json = dict[str, Any]  # events are JSON of many shapes
USAGE: Json = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 27,
}
COUNTS = TokenCounts(input=10, cached_input=8, cache_write_5m=2, output=3, reasoning=4)
SECRET = "the key sk-secret of org-internal is out of quota"


def event(kind: str, **fields: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def delta(text: object, kind: str = "response.output_text.delta", **fields: object) -> bytes:
    return event(kind, item_id="msg_1", delta=text, **fields)


def end(status: str = "completed", **fields: object) -> bytes:
    return event(f"response.{status}", response={"id": "resp_1", "status": status, "output": [], **fields})


def stream(held_tokens: int = 100) -> ResponsesStream:
    return ResponsesStream(held_tokens=held_tokens)


OPENING = event("response.created", sequence_number=0, response={"status": "in_progress"})


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_usage_is_read_off_the_last_event_and_every_byte_passes(status: str) -> None:
    reader = stream()
    came = OPENING + b": keep-alive\n\n" + delta("Hel") + delta("lo") + end(status, usage=USAGE) + b"data: [DONE]\n\n"
    assert reader.feed(came) + reader.end() == came
    assert (reader.counts, reader.complete, reader.ended) == (COUNTS, True, True)


@pytest.mark.parametrize(
    "kind",
    [
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.something_of_tomorrow.delta",
    ],
)
def test_output_of_every_kind_counts_so_that_leaving_early_is_not_free(kind: str) -> None:
    reader = stream()
    reader.feed(OPENING + delta("ß", kind) + delta("x", kind))
    assert (reader.chunks, reader.text_bytes, reader.output_tokens, reader.complete) == (2, 3, 2, False)


def test_what_was_sent_without_deltas_counts_where_nobody_reports_usage() -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "x" * 400}]}
    call = {"type": "function_call", "id": "y" * 99, "arguments": "z" * 40}
    reader = stream(1000)
    reader.feed(end(output=[item, call, "odd", {"content": ["odd"]}]))
    assert (reader.counts, reader.other_bytes, reader.output_tokens) == (None, 446, 149)


def test_thoughts_that_nobody_can_read_count_for_whoever_leaves_early() -> None:
    reader = stream(1000)
    sealed = {"type": "reasoning", "id": "x" * 99, "summary": [], "encrypted_content": "s" * 300}
    said = {"type": "message", "content": [{"type": "output_text", "text": "word"}]}
    reader.feed(event("response.output_item.done", item=sealed) + delta("word"))
    reader.feed(event("response.output_item.done", item=said))
    assert (reader.chunks, reader.other_bytes, reader.output_tokens) == (1, 300, 101)


@pytest.mark.parametrize("kind", ["response.audio.delta", "response.output_audio.delta"])
def test_sound_that_nobody_reported_is_all_that_was_held(kind: str) -> None:
    reader = stream(50)
    came = delta("A" * 100_000, kind)
    assert reader.feed(came) == came
    assert reader.output_tokens == 50


def test_not_one_chunk_more_than_was_held_is_passed_on() -> None:
    reader = stream(2)
    assert reader.feed(b"".join(delta(str(number)) for number in range(5))) == delta("0") + delta("1")
    assert (reader.fault, reader.output_tokens) == (StreamFault.TOO_MUCH, 2)


def test_nor_is_a_last_chunk_that_has_no_empty_line() -> None:
    reader = stream(1)
    passed = reader.feed(delta("0") + delta("1")[:-1]) + reader.end()
    assert (passed, reader.fault) == (delta("0"), StreamFault.TOO_MUCH)


def test_a_summary_of_reasoning_may_be_longer_than_what_was_held() -> None:
    reader = stream(1)
    came = b"".join(delta("word ", "response.reasoning_summary_text.delta") for _ in range(5))
    assert reader.feed(came) == came
    assert reader.fault is None


@pytest.mark.parametrize("usage", [None, USAGE])
def test_a_failure_says_so_in_our_words_with_a_code_we_know(usage: Json | None) -> None:
    error = {"code": "rate_limit_exceeded", "message": SECRET}
    reader = stream()
    passed = reader.feed(OPENING + end("failed", error=error, usage=usage))
    said = orjson.loads(passed.removeprefix(OPENING).split(b"data: ")[1])
    assert said["response"]["error"]["code"] == "rate_limit_exceeded"
    assert said["response"]["status"] == "failed"
    assert SECRET.encode() not in passed
    assert reader.counts == (COUNTS if usage else TokenCounts())
    assert reader.complete


@pytest.mark.parametrize("error", [None, "x", {"code": 7}, {"code": "insufficient_quota", "message": SECRET}])
def test_a_code_we_do_not_know_is_the_providers_own_business(error: object) -> None:
    passed = stream().feed(end("failed", error=error))
    assert b'"code":"server_error"' in passed
    assert b"quota" not in passed


def test_a_failure_after_some_output_costs_what_came() -> None:
    reader = stream()
    reader.feed(delta("Hello") + end("failed", error={"code": "server_error"}))
    assert (reader.counts, reader.output_tokens, reader.complete) == (None, 1, True)


@pytest.mark.parametrize(
    "raw",
    [
        event("error", code="server_error", message=SECRET, param=None, sequence_number=2),
        event("error", sequence_number=2, error={"type": "insufficient_quota", "message": SECRET}),
        b"data: " + orjson.dumps({"error": {"message": SECRET}}) + b"\n\n",
    ],
)
@pytest.mark.parametrize("before", [b"", delta("good")])
def test_an_error_event_ends_the_stream_and_is_not_shown(raw: bytes, before: bytes) -> None:
    reader = stream()
    assert reader.feed(OPENING + before + raw + delta("never")) == OPENING + before
    assert (reader.fault, reader.complete) == (StreamFault.PROVIDER_ERROR, False)
    assert reader.counts == (None if before else TokenCounts())  # before any output, the provider has done no work


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("code", ["context_length_exceeded", "insufficient_quota", 7])
def test_what_is_wrong_with_the_request_is_told_by_its_code_alone(code: object, *, nested: bool) -> None:
    fields = {"code": code, "message": SECRET, "param": "input"}
    reader = stream()
    reader.feed(OPENING + event("error", **({"error": fields} if nested else fields)))
    said = orjson.loads(reader.error_event(BadGateway("It broke."), "req_1").split(b"data: ")[1])
    assert SECRET not in str(said)
    assert said["code"] == said["error"]["code"] == (code if code == "context_length_exceeded" else "bad_gateway")


@pytest.mark.parametrize("raw", [b"data: {nonsense\n\n", b"data: 7\n\n", b"data: []\n\n", b"event: x\ndata:\n\n"])
def test_what_cannot_be_read_is_not_passed_on(raw: bytes) -> None:
    reader = stream()
    assert reader.feed(delta("good") + raw) == delta("good")
    assert reader.fault is StreamFault.MALFORMED


@pytest.mark.parametrize(
    "raw",
    [
        b"data: {}\n\n",
        b'data: {"type": 7, "delta": "x"}\n\n',
        delta(None),
        delta({"a": 1}),
        delta(""),
        event("response.completed"),
        event("response.completed", response=[]),
        event("response.failed", response=7),
        event("response.in_progress", sequence_number="x"),
    ],
)
def test_odd_events_do_no_harm(raw: bytes) -> None:
    reader = stream()
    reader.feed(raw)
    assert (reader.fault, reader.chunks) == (None, 0)


def test_the_first_event_may_be_as_long_as_the_tools_of_a_request() -> None:
    reader = stream()
    came = event("response.created", response={"instructions": "x" * 9_000_000})
    assert reader.feed(came) == came
    assert reader.feed(b"data: " + b"x" * (17 * 1024 * 1024)) == b""
    assert reader.fault is StreamFault.MALFORMED


def test_what_repeats_the_request_is_known_as_such_once() -> None:
    reader = stream()
    came = [event(f"response.{kind}", response={"tools": ["x" * 999]}) for kind in ("created", "in_progress")]
    came += [delta("x"), end()]
    for _ in range(3):
        reader.feed(b"".join(came))
    assert reader.echoed_bytes == sum(len(one) for one in came if b"delta" not in one)


def test_our_own_error_event_is_flat_as_documented_and_nested_as_the_service_sends_it() -> None:
    reader = stream()
    reader.feed(event("response.created", sequence_number=4, response={}) + delta("x"))
    name, data = reader.error_event(BadGateway("It broke.", code="provider_stream_cut"), "req_1").split(b"\n")[:2]
    said = orjson.loads(data.removeprefix(b"data: "))
    assert name == b"event: error"
    assert said["error"] == {
        "message": "It broke.",
        "type": "server_error",
        "param": None,
        "code": "provider_stream_cut",
    }
    assert {**said, "error": None} == {
        "type": "error",
        "code": "provider_stream_cut",
        "message": "It broke.",
        "param": None,
        "sequence_number": 6,
        "error": None,
    }


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"input_tokens": 1},
        {"input_tokens": True, "output_tokens": 1},
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": 1.5, "output_tokens": 1},
        {"input_tokens": 10**15, "output_tokens": 1},
    ],
)
def test_nonsense_is_no_usage(raw: object) -> None:
    assert read_usage(raw) is None


def test_parts_of_usage_are_never_more_than_the_whole() -> None:
    odd = {**USAGE, "input_tokens_details": {"cached_tokens": 99, "cache_write_tokens": 5}, "output_tokens_details": []}
    assert read_usage(odd) == TokenCounts(cached_input=15, cache_write_5m=5, output=7)


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_whole_answer_passes_as_it_came(status: str) -> None:
    items = [{"type": "reasoning", "summary": [{"text": "naïve"}]}, {"type": "custom_tool_call", "input": "x"}]
    whole = read_response(orjson.dumps({"status": status, "output": items, "usage": USAGE, "error": None}))
    assert (whole.counts, whole.text_bytes, whole.body) == (COUNTS, 7, None)


def test_a_whole_failure_is_worded_by_us_and_costs_nothing_where_nothing_came() -> None:
    failed: Json = {"id": "resp_1", "status": "failed", "output": [], "usage": None, "error": {"message": SECRET}}
    whole = read_response(orjson.dumps(failed))
    assert whole.counts == TokenCounts()
    assert whole.body is not None
    assert SECRET.encode() not in whole.body
    assert orjson.loads(whole.body)["id"] == "resp_1"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"<html>", b"[]", b"{}", b'{"output": {}}', b'{"output": [], "status": "queued"}',
        b'{"output": [], "status": "in_progress"}', b'{"output": [], "status": []}', b'{"error": {"message": "x"}}',
    ],
)  # fmt: skip
def test_what_is_no_finished_response_cannot_be_used(raw: bytes) -> None:
    with pytest.raises(AnswerUnusable):
        read_response(raw)
