"""OpenAI responses on their way back: bytes pass, usage is read, a provider's own words about a failure are not shown.

    response.created · response.in_progress · (response.….delta)* · response.completed | .incomplete | .failed

Source: OpenAI API reference, "Streaming events" and "The response object" (2026-11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from llm_gateway.accounting import TokenCounts
from llm_gateway.providers.rejections import KNOWN_CODES
from llm_gateway.wire.answer_stream import AnswerStream
from llm_gateway.wire.format import AnswerUnusable, StreamFault, WholeAnswer
from llm_gateway.wire.openai_answer import DONE
from llm_gateway.wire.openai_dialect import error_object
from llm_gateway.wire.openai_usage import count, service_of, shares
from llm_gateway.wire.sse import SseSplitter, event_data
from llm_gateway.wire.written import Written

if TYPE_CHECKING:
    from collections.abc import Collection

    from core.errors import ButtressError

# The first and the last events repeat the request's instructions and tools, so they may be as long as a request.
MAX_EVENT_BYTES: Final = 16 * 1024 * 1024

_OPENING: Final = frozenset({"response.created", "response.queued", "response.in_progress"})
_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_FINAL_STATUSES: Final = ("completed", "failed", "incomplete")
# Shown beside the output and not part of it: a summary may be longer than what it sums up.
_SUMMARY_DELTA: Final = "response.reasoning_summary_text.delta"
# Sound and pictures come in base64.
_MEDIA_DELTAS: Final = frozenset({"response.audio.delta", "response.output_audio.delta"})
_ITEM_DONE: Final = "response.output_item.done"
_FAILURE_CODES: Final = KNOWN_CODES | {"rate_limit_exceeded", "server_error"}
_FAILURE: Final = "The model's provider failed before the answer was complete."


def read_usage(raw: object) -> TokenCounts | None:
    """The usage object of a response, by class; None where it is missing, null or nonsense.

    OpenAI writes its cache for half an hour; that is its only price for writing, so it counts as the shorter kind.
    """
    if not isinstance(raw, dict):
        return None
    prompt, output = count(raw.get("input_tokens")), count(raw.get("output_tokens"))
    if prompt is None or output is None or not (prompt or output):
        return None  # noughts are no figures: no call has an empty prompt
    of_prompt, of_output = _object(raw.get("input_tokens_details")), _object(raw.get("output_tokens_details"))
    written, cached = shares(prompt, of_prompt.get("cache_write_tokens"), of_prompt.get("cached_tokens"))
    [reasoning] = shares(output, of_output.get("reasoning_tokens"))
    return TokenCounts(
        input=prompt - written - cached,
        cached_input=cached,
        cache_write_5m=written,
        output=output - reasoning,
        reasoning=reasoning,
    )


def read_response(raw: bytes) -> WholeAnswer:
    """What a whole answer used. One that failed is passed on without the provider's own words.

    Raises: AnswerUnusable when it is not a response that has come to its end.
    """
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise AnswerUnusable from error
    if not isinstance(answer, dict) or not isinstance(answer.get("output"), list):
        raise AnswerUnusable
    if answer.get("status", "completed") not in _FINAL_STATUSES:
        raise AnswerUnusable
    written = _written(answer["output"])
    text_bytes = written.other_bytes
    if answer.get("error"):
        return WholeAnswer(_used_by_failed(answer, text_bytes), text_bytes, body=orjson.dumps(_without_words(answer)))
    return WholeAnswer(read_usage(answer.get("usage")), text_bytes, service_of(answer), has_media=written.has_media)


class ResponsesStream(AnswerStream):
    """One streamed answer. Every byte passes, but for the provider's own words about a failure."""

    __slots__ = ("_done_bytes", "_next_number", "_rejection", "_seen_whole")

    def __init__(self, *, held_tokens: int) -> None:
        super().__init__(held_tokens=held_tokens)
        self._splitter = SseSplitter(max_event_bytes=MAX_EVENT_BYTES)
        self._next_number = 0
        self._done_bytes = 0  # text that belongs to items which are done
        self._seen_whole: set[str] = set()  # the kinds of events that hold a whole response, each of which comes once
        self._rejection: str | None = None  # the provider's code for what is wrong with the request

    def error_event(self, error: ButtressError, request_id: str) -> bytes:
        """As documented, flat, and with the object that the service sends and for which the SDKs raise APIError."""
        said = error_object(error)
        if self._rejection is not None:
            reason = self._rejection.replace("_", " ")
            said |= {
                "message": f"The model's provider rejected the request ({reason}).",
                "type": "invalid_request_error",
                "code": self._rejection,
            }
        flat = {name: said[name] for name in ("code", "message", "param")}
        return _event("error", {**flat, "sequence_number": self._next_number, "error": said})

    def _read(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None or data == DONE:
            return event
        seen = self._parse(data)
        if seen is None:
            return b""
        kind = seen.get("type")
        if kind == "error" or seen.get("error"):
            self.fault = StreamFault.PROVIDER_ERROR
            self.counts = _used_by_failed({}, self.text_bytes + self.other_bytes)
            self._rejection = _known_code(seen.get("error") or seen, KNOWN_CODES)
            return b""
        if isinstance(kind, str) and kind.endswith(".delta"):
            self._count_output(kind, seen.get("delta"))
            if self.fault is not None:
                return b""
        elif kind == _ITEM_DONE:
            self._count_item(seen.get("item"))
        self._next_number = (count(seen.get("sequence_number")) or self._next_number) + 1
        if not isinstance(kind, str):
            return event
        if kind in _OPENING | _TERMINAL and kind not in self._seen_whole:
            self._seen_whole.add(kind)
            self.echoed_bytes += len(event)
        return self._finish(event, kind, seen) if kind in _TERMINAL else event

    def _count_output(self, kind: str, delta: object) -> None:
        if kind in _MEDIA_DELTAS:
            self.has_media = True
        elif not isinstance(delta, str):
            self._count_beside(_written(delta))
        elif kind == _SUMMARY_DELTA:
            self.chunks += 1
            self.text_bytes += len(delta.encode("utf-8", "surrogatepass"))
        elif delta:
            self._count_chunk(delta.encode("utf-8", "surrogatepass"))

    def _count_item(self, item: object) -> None:
        """What an item has that came in no deltas: thoughts in a form that nobody can read, say, which are paid for."""
        written = _written(item)
        written.other_bytes = max(0, written.other_bytes - (self.text_bytes - self._done_bytes))
        self._done_bytes = self.text_bytes
        self._count_beside(written)

    def _finish(self, event: bytes, kind: str, seen: dict[str, object]) -> bytes:
        """The last event. Some servers send no deltas for some of what they write; all of it stands here."""
        self.ended = True
        answer = _object(seen.get("response"))
        self.service = service_of(answer)
        written = _written(answer.get("output"))
        self.other_bytes = max(self.other_bytes, written.other_bytes - self.text_bytes)
        self.has_media |= written.has_media
        if kind != "response.failed":
            self._report(read_usage(answer.get("usage")))
            return event
        self._report(_used_by_failed(answer, self.text_bytes + self.other_bytes))
        return _event(kind, {**seen, "response": _without_words(answer)})


def _used_by_failed(failed: dict[str, object], text_bytes: int) -> TokenCounts | None:
    """What a failed response used: nothing, where the provider reports no usage and nothing came.

    So it is when OpenAI has the request's headers answered before it looks at its account's quota, say.
    """
    reported = read_usage(failed.get("usage"))
    return TokenCounts() if reported is None and not text_bytes else reported


def _without_words(failed: dict[str, object]) -> dict[str, object]:
    """A failed response as the client may see it: a code that we know, and a sentence of ours."""
    code = _known_code(failed.get("error"), _FAILURE_CODES) or "server_error"
    return {**failed, "error": {"code": code, "message": _FAILURE}}


def _known_code(error: object, known: Collection[str]) -> str | None:
    code = _object(error).get("code")
    return code if isinstance(code, str) and code in known else None


def _event(kind: str, fields: dict[str, object]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def _written(items: object) -> Written:
    """All that the model wrote into these output items or their parts."""
    written = Written()
    written.add_other(items)
    return written


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
