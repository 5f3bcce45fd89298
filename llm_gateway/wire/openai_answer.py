"""OpenAI chat completions on their way back: bytes pass, usage is read, what the client did not ask for is hidden.

Source: OpenAI API reference, "Create chat completion" and "Chat completion chunk object" (2026-11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from llm_gateway.wire.answer_stream import AnswerStream
from llm_gateway.wire.format import AnswerUnusable, StreamFault, WholeAnswer
from llm_gateway.wire.openai_dialect import OPENAI
from llm_gateway.wire.openai_usage import read_usage, service_of
from llm_gateway.wire.sse import data_event, event_data

if TYPE_CHECKING:
    from core.errors import ButtressError

DONE: Final = b"[DONE]"
# With stream_options.include_usage, every chunk but the last carries this. In valid JSON these bytes are always a key
# and its value, never part of a string (the quotes would be escaped), so they can be cut without writing JSON anew.
_NULL_USAGE: Final = (b',"usage":null', b', "usage": null')


def read_completion(raw: bytes) -> WholeAnswer:
    """The reported usage of a whole answer, and the UTF-8 bytes of text in it (to estimate with, if there is no usage).

    Raises: AnswerUnusable when it is not a chat completion with at least one choice.
    """
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise AnswerUnusable from error
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise AnswerUnusable
    text_bytes = sum(_text_bytes(choice.get("message")) for choice in choices if isinstance(choice, dict))
    return WholeAnswer(read_usage(answer.get("usage")), text_bytes, service_of(answer))


class ChatStream(AnswerStream):
    """One streamed completion. The usage that the client did not ask for is hidden, every other byte passes."""

    __slots__ = ("_hide_usage",)

    def __init__(self, *, hide_usage: bool, held_tokens: int) -> None:
        super().__init__(held_tokens=held_tokens)
        self._hide_usage = hide_usage

    def error_event(self, error: ButtressError, request_id: str) -> bytes:
        """The official SDKs raise APIError for it."""
        return data_event(OPENAI.error_body(error, request_id))

    def _read(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None:
            return event
        if data == DONE:
            self.ended = True
            return event
        chunk = self._parse(data)
        if chunk is None:
            return b""
        if chunk.get("error"):
            self.fault = StreamFault.PROVIDER_ERROR
        if "service_tier" in chunk:
            self.service = service_of(chunk) or self.service
        self._count_output(chunk.get("choices"))
        if self.fault is not None or "usage" not in chunk:
            return event  # which nobody passes on after a fault
        self._report(read_usage(chunk["usage"]))
        return _without_usage(event, chunk) if self._hide_usage else event

    def _count_output(self, choices: object) -> None:
        if not isinstance(choices, list):
            return
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            size = _text_bytes(choice.get("delta"))
            if size:  # an empty first delta, or one that only opens a tool call, is no token of output
                self._count_chunk(size)
            if choice.get("finish_reason"):
                self.finished = True


def _without_usage(event: bytes, chunk: dict[str, object]) -> bytes:
    if chunk["usage"] is None:
        for written in _NULL_USAGE:
            if event.count(written) == 1:
                return event.replace(written, b"")
    elif not chunk.get("choices"):
        return b""
    del chunk["usage"]
    return data_event(orjson.dumps(chunk))


def _text_bytes(message: object) -> int:
    """The UTF-8 bytes that the model wrote into a message or delta: text, refusal, reasoning, arguments of tools."""
    if not isinstance(message, dict):
        return 0
    size = 0
    for field in ("content", "refusal", "reasoning_content", "reasoning"):
        size += _string_bytes(message.get(field))
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        size += sum(_call_bytes(call) for call in calls)
    return size + _call_bytes({"function": message.get("function_call")})


def _string_bytes(value: object) -> int:
    """Of a text, or of all texts within parts (Mistral streams what its models think as a list of them)."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return sum(_string_bytes(part) for part in value)
    if isinstance(value, dict):
        return sum(_string_bytes(part) for name, part in value.items() if name != "type")
    return 0


def _call_bytes(call: object) -> int:
    if not isinstance(call, dict):
        return 0
    function, custom = call.get("function"), call.get("custom")
    return (_string_bytes(function.get("arguments")) if isinstance(function, dict) else 0) + (
        _string_bytes(custom.get("input")) if isinstance(custom, dict) else 0
    )
