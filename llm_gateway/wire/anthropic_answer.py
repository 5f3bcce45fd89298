"""Anthropic's messages on their way back: every byte passes, usage is read.

Source: Anthropic API reference, "Create a Message" and "Streaming messages" (version 2023-06-01, read 2026-11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from llm_gateway.accounting import TokenCounts
from llm_gateway.wire.answer_stream import AnswerStream
from llm_gateway.wire.anthropic_dialect import ANTHROPIC
from llm_gateway.wire.format import AnswerUnusable, StreamFault, WholeAnswer
from llm_gateway.wire.openai_usage import count, service_of
from llm_gateway.wire.sse import event_data
from llm_gateway.wire.written import Written, text_of

if TYPE_CHECKING:
    from core.errors import ButtressError

# What of a delta and of the beginning of a block the model wrote; of a block, `input` as JSON.
_WRITTEN: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_SERVERS_DELTAS: Final = frozenset({"signature_delta", "citations_delta"})
_TEXTS: Final = ("text", "thinking")


def read_usage(raw: object, before: TokenCounts | None = None) -> TokenCounts | None:
    """The usage object of a message, by class; None where it is missing or nonsense.

    Within a stream the figures are cumulative: what a later event leaves out stays as it was `before`. What was written
    to the cache without saying for how long is there for the ordinary five minutes.
    """
    if not isinstance(raw, dict):
        return before
    output = count(raw.get("output_tokens"))
    fresh = count(raw.get("input_tokens"))
    if fresh is None and before is not None:
        fresh = before.input
    if output is None or fresh is None:
        return before
    unsaid, before = before is None, before or TokenCounts()
    thinking = _details(raw).get("thinking_tokens")
    reasoning = min(count(thinking) or 0, output) if thinking is not None else min(before.reasoning, output)
    read = count(raw.get("cache_read_input_tokens"))
    write_5m, write_1h = _cache_writes(raw, before)
    counts = TokenCounts(
        input=fresh,
        cached_input=before.cached_input if read is None else read,
        cache_write_5m=write_5m,
        cache_write_1h=write_1h,
        output=output - reasoning,
        reasoning=reasoning,
    )
    return None if unsaid and not counts.total else counts  # noughts are no figures: no call has an empty prompt


def _cache_writes(raw: dict[str, object], before: TokenCounts) -> tuple[int, int]:
    by_age = raw.get("cache_creation")
    written = count(raw.get("cache_creation_input_tokens"))
    if isinstance(by_age, dict):
        hour = count(by_age.get("ephemeral_1h_input_tokens")) or 0
        short = count(by_age.get("ephemeral_5m_input_tokens")) or 0
        return max(short, (written or 0) - hour), hour
    if written is None:
        return before.cache_write_5m, before.cache_write_1h
    return max(written - before.cache_write_1h, 0), min(before.cache_write_1h, written)


def _details(raw: dict[str, object]) -> dict[str, object]:
    details = raw.get("output_tokens_details")
    return details if isinstance(details, dict) else {}


def read_message(raw: bytes) -> WholeAnswer:
    """The reported usage of a whole message, and the bytes that the model wrote.

    Raises: AnswerUnusable when it is not a message.
    """
    answer = _object(raw)
    content = answer.get("content")
    if answer.get("type") != "message" or not isinstance(content, list):
        raise AnswerUnusable
    usage = answer.get("usage")
    written = Written()
    written.add_other(content)
    return WholeAnswer(read_usage(usage), written.other_bytes, _service(usage), has_media=written.has_media)


def read_token_count(raw: bytes) -> WholeAnswer:
    """The answer of count_tokens, which used nothing. Raises: AnswerUnusable when it is none."""
    if count(_object(raw).get("input_tokens")) is None:
        raise AnswerUnusable
    return WholeAnswer(TokenCounts(), 0)


def _service(usage: object) -> str | None:
    return service_of(usage) if isinstance(usage, dict) else None


def _object(raw: bytes) -> dict[str, object]:
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise AnswerUnusable from error
    if not isinstance(answer, dict):
        raise AnswerUnusable
    return answer


class MessageStream(AnswerStream):
    """One streamed message. Nothing is hidden: Anthropic always reports usage."""

    __slots__ = ()

    def error_event(self, error: ButtressError, request_id: str) -> bytes:
        """The official SDKs raise APIStatusError for it."""
        return b"event: error\ndata: " + ANTHROPIC.error_body(error, request_id) + b"\n\n"

    def _read(self, event: bytes) -> bytes:
        data = event_data(event)
        parsed = None if data is None else self._parse(data)
        if parsed is not None:
            self._note(parsed)
        return event

    def _note(self, event: dict[str, object]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            self._count(_of_delta(event.get("delta")))
        elif kind == "content_block_start":
            self._count(_of_block(event.get("content_block")))
        elif kind == "message_start":
            message = event.get("message")
            usage = message.get("usage") if isinstance(message, dict) else None
            self._report(read_usage(usage))
            self.service = _service(usage) or self.service
        elif kind == "message_delta":
            delta = event.get("delta")
            self._report(read_usage(event.get("usage"), self.counts))
            self.finished |= isinstance(delta, dict) and bool(delta.get("stop_reason"))
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error":
            self.fault = StreamFault.PROVIDER_ERROR

    def _count(self, written: Written) -> None:
        self._count_beside(written)
        if written.text:
            self._count_chunk(written.text)


def _of_delta(delta: object) -> Written:
    written = Written()
    kind = delta.get("type") if isinstance(delta, dict) else None
    if isinstance(delta, dict) and isinstance(kind, str) and kind in _WRITTEN:
        written.text = text_of(delta.get(_WRITTEN[kind]))
    elif not isinstance(kind, str) or kind not in _SERVERS_DELTAS:
        written.add_other(delta)
    return written


def _of_block(block: object) -> Written:
    """What the model wrote into the beginning of a block, or into a whole one."""
    written = Written()
    if isinstance(block, dict):
        written.text = b"".join(text_of(block.get(name)) for name in _TEXTS)
        if isinstance(block.get("input"), dict) and block["input"]:
            written.text += orjson.dumps(block["input"])
        written.add_other({name: value for name, value in block.items() if name not in {*_TEXTS, "input"}})
    return written
