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
from llm_gateway.wire.written import Written

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
    written = Written()
    for choice in choices:
        written.add_message(choice.get("message") if isinstance(choice, dict) else None)
    text_bytes = len(written.text) + written.other_bytes
    return WholeAnswer(read_usage(answer.get("usage")), text_bytes, service_of(answer), has_media=written.has_media)


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
            text = self._text(choice.get("delta"))
            if text:  # an empty first delta, or one that only opens a tool call, is no token of output
                self._count_chunk(text, tokens=_tokens_listed(choice.get("logprobs")))
            if choice.get("finish_reason"):
                self.finished = True

    def _text(self, delta: object) -> bytes:
        """What the model wrote in this delta; what else there is in it is noted."""
        if isinstance(delta, dict) and len(delta) == 1 and isinstance(content := delta.get("content"), str):
            return content.encode("utf-8", "surrogatepass")  # as in nearly every chunk
        written = Written()
        written.add_message(delta)
        self._count_beside(written)
        return written.text


def _without_usage(event: bytes, chunk: dict[str, object]) -> bytes:
    if chunk["usage"] is None:
        for written in _NULL_USAGE:
            if event.count(written) == 1:
                return event.replace(written, b"")
    elif not chunk.get("choices"):
        return b""
    del chunk["usage"]
    return data_event(orjson.dumps(chunk))


def _tokens_listed(logprobs: object) -> int:
    """How many tokens a chunk has: one for each probability that the client asked for."""
    if logprobs is None:
        return 1
    lists = [logprobs.get("content"), logprobs.get("refusal")] if isinstance(logprobs, dict) else []
    return max(1, sum(len(one) for one in lists if isinstance(one, list)))
