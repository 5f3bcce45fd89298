"""A stream cut anywhere is redacted as the whole answer would be, in its own format, and hardly held back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.content.held_text import HeldText
from llm_gateway.content.hooks import ContentRuleFailed
from llm_gateway.content.personal_data import LONGEST
from llm_gateway.content.redaction import redact
from llm_gateway.content.stream_redactor import StreamRedactor

TEXT = "Write to jane.doe@example.com or call (415) 555-2671, tel: 5551234; card 4111 1111 1111 1111 ends it."
REDACTED = "Write to [EMAIL] or call [PHONE], tel: [PHONE]; card [CARD] ends it."
ARGUMENTS = '{"to": "jane@example.com", "card": 4111111111111111}'


def redactor(endpoint: str) -> StreamRedactor:
    return StreamRedactor(endpoint, lambda kinds: None)


def pieces_of(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def event(body: dict[str, Any]) -> bytes:
    name = f"event: {body['type']}\n" if "type" in body else ""
    return f"{name}data: {json.dumps(body)}\n\n".encode()


def bodies(raw: bytes) -> Iterator[dict[str, Any]]:
    for block in raw.decode().split("\n\n"):
        for line in block.splitlines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 200])
def test_held_text_joined_is_the_whole_text_redacted(size: int) -> None:
    held = HeldText()
    passed = "".join(held.feed(piece)[0] for piece in pieces_of(TEXT, size)) + held.flush()[0]
    assert passed == REDACTED


@pytest.mark.parametrize("size", [1, 3, 50])
def test_what_nobody_sees_hides_nothing_in_a_stream(size: int) -> None:
    held, text = HeldText(), "to jane\u200b@exam\u00adple.com or 4111\u2060 1111 1111 1111\u200b."
    passed = "".join(held.feed(piece)[0] for piece in pieces_of(text, size)) + held.flush()[0]
    assert passed == "to [EMAIL] or [CARD]\u200b."


def test_an_endless_flow_of_what_nobody_sees_is_not_held_back_for_ever() -> None:
    held = HeldText()
    passed = sum(len(held.feed("a" + "\u200b" * 99)[0]) for _ in range(100))
    assert passed >= 10_000 - 4 * LONGEST


@given(st.text(alphabet="ab1234 @.-+()\u00e9", max_size=400), st.integers(1, 50))
def test_no_more_is_held_back_than_the_bound_and_nothing_is_lost(text: str, size: int) -> None:
    held, passed, fed = HeldText(), "", 0
    for piece in pieces_of(text, size):
        passed += held.feed(piece)[0]
        fed += len(piece)
    passed += held.flush()[0]
    if redact(text)[0] == text and redact(passed)[0] == passed:
        assert passed == text


def test_prose_flows_and_only_its_last_word_waits() -> None:
    held = HeldText()
    assert held.feed("The quick brown fox")[0] == "The quick brown "
    assert held.feed(" jumps")[0] == "fox "


def test_an_endless_word_is_not_held_back_for_ever() -> None:
    held = HeldText()
    passed = sum(len(held.feed("a" * 100)[0]) for _ in range(50))
    assert passed >= 5000 - LONGEST


def chat_chunks(size: int, *, index: int = 0) -> Iterator[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
        return event({"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces_of(TEXT, size):
        yield chunk({"content": piece})
    yield chunk(
        {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    )
    for piece in pieces_of(ARGUMENTS, size):
        yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    yield chunk({}, "tool_calls")
    yield b"data: [DONE]\n\n"


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("cut", [1, 17, 100_000])
def test_a_chat_is_redacted_across_its_chunks(size: int, cut: int) -> None:
    raw, one = b"".join(chat_chunks(size)), redactor("chat")
    out = b"".join(one.feed(raw[start : start + cut]) for start in range(0, len(raw), cut)) + one.end()
    choices = [body["choices"][0] for body in bodies(out)]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == REDACTED
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(arguments) == {"to": "[EMAIL]", "card": "[CARD]"}
    assert calls[0]["id"] == "t"
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]
    assert choices[-1]["finish_reason"] == "tool_calls"  # nothing comes after it
    assert out.endswith(b"data: [DONE]\n\n")


def test_choices_of_one_chat_do_not_mix() -> None:
    one = redactor("chat")
    out = b""
    for left, right in zip(pieces_of("jane@example.com!", 3), pieces_of("4111 1111 1111 11!", 3), strict=True):
        for index, piece in ((0, left), (1, right)):
            out += one.feed(event({"choices": [{"index": index, "delta": {"content": piece}, "finish_reason": None}]}))
    out += one.feed(b"data: [DONE]\n\n") + one.end()
    texts = {0: "", 1: ""}
    for body in bodies(out):
        texts[body["choices"][0]["index"]] += body["choices"][0]["delta"].get("content", "")
    assert texts == {0: "[EMAIL]!", 1: "4111 1111 1111 11!"}


def test_probabilities_do_not_spell_out_what_was_taken_away() -> None:
    logprobs = {"content": [{"token": "jane@example.com", "logprob": 0, "bytes": [106]}]}
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None, "logprobs": logprobs}
    assert b"jane" not in redactor("chat").feed(event({"choices": [choice]}))


def test_messages_are_redacted_across_their_deltas_within_their_block() -> None:
    one = redactor("messages")
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": []}}
    ]
    events += [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in pieces_of(TEXT, 4)
    ]
    events += [{"type": "ping"}, {"type": "content_block_stop", "index": 0}]
    events += [
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "input": {}}}
    ]
    events += [
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": piece}}
        for piece in pieces_of(ARGUMENTS, 4)
    ]
    events += [{"type": "content_block_stop", "index": 1}, {"type": "message_stop"}]
    out = list(bodies(b"".join(one.feed(event(body)) for body in events) + one.end()))
    deltas = [body["delta"] for body in out if body["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == REDACTED
    assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == {"to": "[EMAIL]", "card": "[CARD]"}
    order = [body["type"] for body in out if body["type"] != "content_block_delta"]
    assert order == [body["type"] for body in events if body["type"] != "content_block_delta"]
    assert out[-2]["type"] == "content_block_stop"


def test_responses_are_redacted_in_their_deltas_and_where_these_are_repeated() -> None:
    one = redactor("responses")
    at = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
    part = {"type": "output_text", "text": TEXT, "annotations": []}
    item = {"id": "msg_1", "type": "message", "content": [part]}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": "r", "output": []}}]
    events += [
        {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []} for piece in pieces_of(TEXT, 6)
    ]
    events += [
        {"type": "response.output_text.done", **at, "text": TEXT},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]
    call = {"output_index": 1, "item_id": "fc_1"}
    events += [
        {"type": "response.function_call_arguments.delta", **call, "delta": piece} for piece in pieces_of(ARGUMENTS, 6)
    ]
    events += [
        {"type": "response.function_call_arguments.done", **call, "arguments": ARGUMENTS},
        {"type": "response.completed", "response": {"id": "r", "output": [item]}},
    ]
    raw = b"".join(one.feed(event(body)) for body in events) + one.end()
    assert b"jane" not in raw
    assert b"4111" not in raw
    out = list(bodies(raw))
    assert "".join(body["delta"] for body in out if body["type"] == "response.output_text.delta") == REDACTED
    [arguments] = [body["delta"] for body in out if body["type"] == "response.function_call_arguments.delta"]
    assert json.loads(arguments) == {"to": "[EMAIL]", "card": "[CARD]"}
    assert out[-1]["response"]["output"][0]["content"][0]["text"] == REDACTED
    assert out[-1]["type"] == "response.completed"


def test_a_stream_that_breaks_off_gives_what_was_held_back() -> None:
    one = redactor("chat")
    out = one.feed(event({"choices": [{"index": 0, "delta": {"content": "to jane@example.com"}}]})) + one.end()
    assert "".join(body["choices"][0]["delta"].get("content", "") for body in bodies(out)) == "to [EMAIL]"


@pytest.mark.parametrize("raw", [b"data: {nonsense\n\n", b"data: [1]\n\n"])
def test_what_cannot_be_read_does_not_pass(raw: bytes) -> None:
    with pytest.raises(ContentRuleFailed):
        redactor("chat").feed(raw)


def test_comments_pass() -> None:
    assert redactor("chat").feed(b": keep-alive\n\n") == b": keep-alive\n\n"


def test_a_long_event_is_redacted_in_many_short_steps() -> None:
    part = {"type": "output_text", "text": f"{TEXT} " * 1000}
    raw = event({"type": "response.completed", "response": {"id": "r", "instructions": TEXT, "output": [part] * 2}})
    steps = list(redactor("responses").steps(raw))
    assert len(steps) > 50
    assert b"".join(steps) == redactor("responses").feed(raw)
    assert b"jane" not in b"".join(steps)
