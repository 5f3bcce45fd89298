"""OpenAI chat completions on their way back: bytes pass, usage is read, what the client did not ask for is hidden.

Source: OpenAI API reference, "Create chat completion" and "Chat completion chunk object" (2026-11).
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import orjson

from llm_gateway.accounting import TokenCounts
from llm_gateway.wire.openai_usage import read_usage
from llm_gateway.wire.sse import EventTooLarge, SseSplitter, data_event, event_data

DONE: Final = b"[DONE]"
MAX_EVENT_BYTES: Final = 4 * 1024 * 1024

# Providers send a token a chunk; where a chunk is longer than a token can be, its bytes tell more than its number.
_LONGEST_TOKEN_CHUNK_BYTES: Final = 16
_BYTES_A_TOKEN: Final = 4
# A token may have a hundred bytes, but an answer of such tokens alone does not occur.
_FREE_TEXT_BYTES: Final = 512
# With stream_options.include_usage, every chunk but the last carries this. In valid JSON these bytes are always a key
# and its value, never part of a string (the quotes would be escaped), so they can be cut without writing JSON anew.
_NULL_USAGE: Final = (b',"usage":null', b', "usage": null')


class StreamFault(Enum):
    """Why a stream cannot be passed on any further."""

    MALFORMED = "malformed"
    PROVIDER_ERROR = "provider_error"
    TOO_MUCH = "too_much"


class AnswerUnusable(ValueError):
    """The provider's whole answer is not a chat completion."""


def read_completion(raw: bytes) -> tuple[TokenCounts | None, int]:
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
    return read_usage(answer.get("usage")), text_bytes


def estimate_output_tokens(*, chunks: int, text_bytes: int) -> int:
    """The output tokens that this much text is, when nobody reported them; one chunk is about one token."""
    if text_bytes <= chunks * _LONGEST_TOKEN_CHUNK_BYTES:
        return chunks
    return -(-text_bytes // _BYTES_A_TOKEN)


class ChatStream:
    """One streamed answer: `feed` gives the bytes for the client and keeps count of what they hold.

    `fault` is set when nothing more may be passed on; what was good before it has been returned. `held_tokens` is the
    most output that was paid for in advance: not one chunk more is passed on.
    """

    __slots__ = (
        "_held_tokens", "_hide_usage", "_splitter", "chunks", "fault", "finished", "saw_done", "text_bytes", "usage",
    )  # fmt: skip

    def __init__(self, *, hide_usage: bool, held_tokens: int) -> None:
        self._held_tokens = held_tokens
        self._splitter = SseSplitter(max_event_bytes=MAX_EVENT_BYTES)
        self._hide_usage = hide_usage
        self.usage: TokenCounts | None = None
        self.fault: StreamFault | None = None
        self.chunks = 0  # that carried output: text, reasoning or tool calls
        self.text_bytes = 0
        self.finished = False  # a finish_reason was seen
        self.saw_done = False

    @property
    def complete(self) -> bool:
        """The answer has reached its end, also when the provider leaves [DONE] out."""
        return self.fault is None and (self.saw_done or self.finished)

    @property
    def output_tokens(self) -> int:
        """The output so far: the provider's figure when it gave one, else an estimate."""
        estimate = estimate_output_tokens(chunks=self.chunks, text_bytes=self.text_bytes)
        return self.usage.output_tokens if self.usage and self.complete else estimate

    def feed(self, piece: bytes) -> bytes:
        """The bytes to pass on for this piece; equal to what came in, but for the usage that the client did not ask."""
        try:
            events = self._splitter.feed(piece)
        except EventTooLarge:
            self.fault = StreamFault.MALFORMED
            return b""
        passed = []
        for event in events:
            seen = self._read(event)
            if self.fault is not None:
                break
            passed.append(seen)
        return b"".join(passed)

    def end(self) -> bytes:
        """The provider's stream has ended: what is left to pass on (a last event without its empty line, say)."""
        rest = self._splitter.rest()
        return self._read(rest) if rest.strip() else rest

    def _read(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None:
            return event
        if data == DONE:
            self.saw_done = True
            return event
        chunk = self._parse(data)
        if chunk is not None:
            self._count_output(chunk.get("choices"))
        if chunk is None or self.fault is not None:
            return b""
        if "usage" not in chunk:
            return event
        self.usage = read_usage(chunk["usage"]) or self.usage
        return _without_usage(event, chunk) if self._hide_usage else event

    def _parse(self, data: bytes) -> dict[str, object] | None:
        """The chunk; None, and a fault, where the data is none that may be passed on."""
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            chunk = None
        if not isinstance(chunk, dict):
            self.fault = StreamFault.MALFORMED
            return None
        if chunk.get("error"):
            self.fault = StreamFault.PROVIDER_ERROR
            return None
        return chunk

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

    def _count_chunk(self, size: int) -> None:
        held_bytes = self._held_tokens * _LONGEST_TOKEN_CHUNK_BYTES + _FREE_TEXT_BYTES
        if self.chunks >= self._held_tokens or self.text_bytes + size > held_bytes:
            self.fault = StreamFault.TOO_MUCH
            return
        self.chunks += 1
        self.text_bytes += size


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
