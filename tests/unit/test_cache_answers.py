"""Which answers are final, which requests may be answered twice, and what makes two of them the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.errors import InvalidInput
from llm_gateway.cache.answers import is_final, may_be_cached
from llm_gateway.cache.key import CacheKeys
from llm_gateway.cache.wish import MAX_AGE_S, wished_age_s
from llm_gateway.caller import Caller, Policy
from llm_gateway.wire.format import FormatRequest

USER, WORKSPACE = UUID(int=1), UUID(int=2)
KEYS = CacheKeys("pepper" * 8)
REQUEST = FormatRequest(body={"model": "m", "messages": [], "n": 1}, model="m", stream=False)


def sse(*events: dict[str, Any], done: bool = False) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, *(["data: [DONE]\n\n"] if done else [])]).encode()


def choice(reason: str | None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "finish_reason": reason, "delta": {}}


@pytest.mark.parametrize(
    ("endpoint", "answer", "final"),
    [
        ("chat", {"choices": [choice("stop")]}, True),
        ("chat", {"choices": [choice("tool_calls"), choice("stop", 1)]}, True),
        ("chat", {"choices": [choice("stop"), choice("length", 1)]}, False),
        ("chat", {"choices": [choice("content_filter")]}, False),
        ("chat", {"choices": [choice(None)]}, False),
        ("chat", {"choices": []}, False),
        ("messages", {"stop_reason": "end_turn"}, True),
        ("messages", {"stop_reason": "tool_use"}, True),
        ("messages", {"stop_reason": "max_tokens"}, False),
        ("messages", {"stop_reason": "refusal"}, False),
        ("messages", {"stop_reason": "pause_turn"}, False),
        ("responses", {"status": "completed"}, True),
        ("responses", {"status": "incomplete"}, False),
        ("responses", {"status": "failed"}, False),
        ("embeddings", {"data": [{"embedding": [0.1]}]}, True),
        ("embeddings", {"data": []}, False),
    ],
)
def test_a_whole_answer_is_final_when_the_model_ended_all_of_it(
    endpoint: str, answer: dict[str, Any], *, final: bool
) -> None:
    assert is_final(endpoint, stream=False, raw=json.dumps(answer).encode()) is final


@pytest.mark.parametrize(
    ("endpoint", "raw", "final"),
    [
        ("chat", sse({"choices": [choice(None)]}, {"choices": [choice("stop")]}, {"choices": []}, done=True), True),
        ("chat", sse({"choices": [choice("stop")]}), True),
        ("chat", sse({"choices": [choice("stop")]}, {"error": {"code": "x"}}), False),
        ("chat", sse({"choices": [choice("stop")]}, {"choices": [choice(None, 1)]}, done=True), False),
        (
            "messages",
            sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}),
            True,
        ),
        ("messages", sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}), False),
        (
            "messages",
            sse({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, {"type": "message_stop"}),
            False,
        ),
        ("responses", sse({"type": "response.completed", "response": {"status": "completed"}}), True),
        ("responses", sse({"type": "response.incomplete", "response": {"status": "incomplete"}}), False),
        ("chat", b"", False),
        ("chat", b"data: {half", False),
        ("chat", b"data: [1]\n\n", False),
    ],
)
def test_a_stream_is_final_when_the_model_ended_all_of_it(endpoint: str, raw: bytes, *, final: bool) -> None:
    assert is_final(endpoint, stream=True, raw=raw) is final


@pytest.mark.parametrize("field", ["background", "conversation", "previous_response_id"])
def test_what_refers_to_something_kept_elsewhere_is_asked_anew(field: str) -> None:
    assert may_be_cached("responses", REQUEST)
    assert not may_be_cached("responses", replace(REQUEST, body={**REQUEST.body, field: "x"}))
    assert not may_be_cached("count_tokens", REQUEST)


def test_the_order_of_fields_makes_no_difference_and_everything_else_does() -> None:
    caller = Caller(USER)
    key = KEYS.make(caller, "chat", REQUEST)
    assert KEYS.make(caller, "chat", replace(REQUEST, body=dict(reversed(REQUEST.body.items())))) == key
    others = [
        KEYS.make(caller, "responses", REQUEST),
        KEYS.make(caller, "chat", replace(REQUEST, body={**REQUEST.body, "n": 2})),
        KEYS.make(caller, "chat", replace(REQUEST, body={**REQUEST.body, "n": 1.0})),
        KEYS.make(caller, "chat", replace(REQUEST, headers={"anthropic-beta": "x"})),
        KEYS.make(Caller(UUID(int=3)), "chat", REQUEST),
        KEYS.make(Caller(USER, workspace_id=WORKSPACE), "chat", REQUEST),
        KEYS.make(Caller(USER, workspace_id=USER), "chat", REQUEST),  # an id alike is no tenant alike
        KEYS.make(Caller(USER, policy=Policy(redact=True)), "chat", REQUEST),
        KEYS.make(Caller(USER, policy=Policy(redact_answers=True)), "chat", REQUEST),
        KEYS.make(Caller(USER, policy=Policy(max_output_tokens=5)), "chat", REQUEST),
        KEYS.make(Caller(USER, policy=Policy(max_choices=5)), "chat", REQUEST),
        KEYS.make(Caller(USER, policy=Policy(models=frozenset({"m"}))), "chat", REQUEST),
        CacheKeys("pepper" * 8, rules=["mine"]).make(caller, "chat", REQUEST),
        CacheKeys("another" * 8).make(caller, "chat", REQUEST),
    ]
    places = {other.place for other in [key, *others]}
    assert len(places) == len(others) + 1
    assert len({key.secret, *places}) == len(places) + 1


def test_members_of_a_workspace_have_the_same_key_and_keys_of_theirs_too() -> None:
    mine = KEYS.make(Caller(USER, workspace_id=WORKSPACE), "chat", REQUEST)
    theirs = KEYS.make(Caller(UUID(int=9), key_id=UUID(int=8), workspace_id=WORKSPACE), "chat", REQUEST)
    assert mine == theirs


@pytest.mark.parametrize(
    ("header", "of_model_s", "age_s"),
    [
        (None, None, None),
        (None, 60, 60),
        ("max-age=5", 60, 5),
        (" Max-Age=5 ", None, 5),
        ("no-store", 60, None),
        ("max-age=0", 60, None),
        ("max-age=9999999", None, MAX_AGE_S),
    ],
)
def test_what_the_call_says_comes_before_the_model(
    header: str | None, of_model_s: int | None, age_s: int | None
) -> None:
    assert wished_age_s(header, of_model_s) == age_s


@pytest.mark.parametrize("header", ["", "max-age", "max-age=x", "max-age=99999999", "public", "max-age=1;no-store"])
def test_a_wish_that_cannot_be_read_is_refused(header: str) -> None:
    with pytest.raises(InvalidInput, match="x-buttress-cache"):
        wished_age_s(header, None)
