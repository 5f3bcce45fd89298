"""Every text of every format is looked at, and nothing that only carries the format is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_gateway.content.redaction import Redaction
from llm_gateway.content.steps import at_once
from llm_gateway.content.texts import rewrite_texts

MAIL, CARD = "jane@example.com", "4111111111111111"
PICTURE = "data:image/png;base64,jane@example.com"  # what it holds does not matter: it is not looked into

ARGUMENTS = {"to": MAIL, "card": int(CARD), "note": f"a\n{MAIL}", "data": MAIL}
CHAT: dict[str, Any] = {
    "model": "a/model",
    "user": MAIL,
    "metadata": {"customer": MAIL, MAIL: "x"},
    "messages": [
        {"role": "system", "content": f"Write to {MAIL}."},
        {"role": "user", "name": "jane", "content": [
            {"type": "text", "text": MAIL},
            {"type": "image_url", "image_url": {"url": PICTURE}},
            {"type": "file", "file": {"filename": f"{MAIL}.pdf", "file_data": "anFuZUBleGFtcGxl"}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {
                "name": "pay", "arguments": json.dumps(ARGUMENTS),
            }},
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": f'{{"mail": "{MAIL}"}}'},
    ],
    "tools": [{"type": "function", "function": {"name": "pay", "description": f"Ask {MAIL}.", "parameters": {}}}],
    "seed": int(CARD),
}  # fmt: skip
MESSAGES: dict[str, Any] = {
    "model": "a/model",
    "system": [{"type": "text", "text": MAIL, "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": MAIL},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "tool_use", "id": "toolu_1", "name": "pay", "input": {"id": MAIL, "url": MAIL, "n": int(CARD)}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": MAIL}]},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": MAIL}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "jane@example.com"}},
        ]},
    ],
}  # fmt: skip
RESPONSES: dict[str, Any] = {
    "model": "a/model",
    "instructions": MAIL,
    "input": [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": MAIL}, {"type": "input_image", "image_url": PICTURE}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": json.dumps({"a": [MAIL]})},
        {"type": "function_call_output", "call_id": "c", "output": MAIL},
    ],
    "prompt": {"id": "pmpt_1", "variables": {"url": MAIL}},
}
EMBEDDINGS: dict[str, Any] = {"model": "a/model", "input": [MAIL, "plain"]}


def rewritten(body: dict[str, Any]) -> Any:
    return at_once(rewrite_texts(body, Redaction()))


@pytest.mark.parametrize(
    "body", [CHAT, MESSAGES, RESPONSES, EMBEDDINGS], ids=["chat", "messages", "responses", "embeddings"]
)
def test_no_text_of_any_format_keeps_personal_data(body: dict[str, Any]) -> None:
    before = json.dumps(body)
    seen = rewritten(body)
    text = json.dumps(seen).replace(PICTURE, "").replace('"media_type": "image/png", "data": "jane@example.com"', "")
    assert MAIL not in text
    assert "[EMAIL]" in text
    assert CARD not in text.replace(f'"seed": {CARD}', "")
    assert json.dumps(body) == before  # the client's own object is as it was


def test_what_the_format_is_made_of_stays() -> None:
    seen = rewritten(CHAT)
    assert seen["seed"] == int(CARD)
    assert seen["messages"][1]["content"][1:2] == CHAT["messages"][1]["content"][1:2]
    assert seen["messages"][2]["tool_calls"][0]["id"] == "call_1"
    assert rewritten(MESSAGES)["messages"][1]["content"][0] == MESSAGES["messages"][1]["content"][0]
    assert rewritten(MESSAGES)["messages"][2]["content"][2] == MESSAGES["messages"][2]["content"][2]


def test_arguments_of_tools_stay_json_whatever_is_taken_out() -> None:
    arguments = rewritten(CHAT)["messages"][2]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"to": "[EMAIL]", "card": "[CARD]", "note": "a\n[EMAIL]", "data": "[EMAIL]"}


def test_what_holds_nothing_personal_is_the_same_object() -> None:
    body = {"messages": [{"role": "user", "content": "hello", "n": [1, 2.5, None, True]}]}
    assert rewritten(body) is body


def test_parts_that_follow_each_other_are_read_as_one_text() -> None:
    parts = [
        {"type": "text", "text": "I am jane@"},
        {"type": "text", "text": "example.com", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": PICTURE}},
        {"type": "text", "text": "call +49 30"},
        {"type": "input_text", "text": " 1234567 now"},
    ]
    seen = rewritten({"messages": [{"role": "user", "content": parts}], "system": parts})
    for content in (seen["messages"][0]["content"], seen["system"]):
        assert [part.get("text") for part in content] == ["I am [EMAIL]", "", None, "call [PHONE]", " now"]
        assert content[1]["cache_control"] == {"type": "ephemeral"}
        assert content[2] is parts[2]


def test_texts_that_nobody_reads_as_one_are_not_put_together() -> None:
    body = {
        "input": ["jane@", "example.com"],
        "messages": [{"role": "user", "content": "jane@"}, {"role": "user", "content": "example.com"}],
    }
    assert rewritten(body) is body


def test_a_large_body_is_worked_on_in_many_short_steps() -> None:
    numbers = list(range(100_000))
    steps = rewrite_texts({"input": numbers, "messages": [{"content": "a word " * 20_000}]}, Redaction())
    assert sum(1 for _ in steps) > 1000
