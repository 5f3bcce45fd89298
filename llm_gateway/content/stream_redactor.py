"""A streamed answer without personal data: each text of it is held back as little as it must be, and no event is lost.

Works on whole events of every format that streams: OpenAI's chat completions and responses, Anthropic's messages.
Arguments of tools are passed on when they are whole, because half of a JSON cannot be rewritten; clients need all of it
before they can call anything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from typing import Any, Final, TypeVar

import orjson

from llm_gateway.content.held_text import HeldText
from llm_gateway.content.hooks import ContentRuleFailed
from llm_gateway.content.personal_data import Kind
from llm_gateway.content.redaction import Redaction, slices
from llm_gateway.content.steps import Steps
from llm_gateway.content.texts import rewrite_json_text, rewrite_texts
from llm_gateway.wire.sse import EventTooLarge, SseSplitter, event_data

_DONE: Final = b"[DONE]"
_MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
_MAX_ARGUMENT_CHARACTERS: Final = 1024 * 1024
_CHAT_TEXTS: Final = ("content", "refusal", "reasoning_content", "reasoning")
_MESSAGE_TEXTS: Final = {"text_delta": "text", "thinking_delta": "thinking"}

T = TypeVar("T")
_Event = dict[str, Any]  # Any: whatever JSON the provider sent
_Place = tuple[Hashable, ...]


class StreamRedactor:
    """One answer: `feed` takes its bytes and gives those for the client; `end` gives the rest."""

    def __init__(self, endpoint: str, counted: Callable[[Iterable[Kind]], None]) -> None:
        self._splitter = SseSplitter(max_event_bytes=_MAX_EVENT_BYTES)
        self._counted = counted
        self._texts: dict[_Place, tuple[HeldText, _Event]] = {}
        self._arguments: dict[_Place, tuple[str, _Event]] = {}
        self._read = {"chat": self._chat, "messages": self._messages, "responses": self._responses}[endpoint]

    def feed(self, piece: bytes) -> bytes:
        """What may be passed on now. Raises: ContentRuleFailed for what cannot be read."""
        return b"".join(self.steps(piece))

    def steps(self, piece: bytes) -> Iterator[bytes]:
        """The same in short steps, of which some give nothing."""
        try:
            events = self._splitter.feed(piece)
        except EventTooLarge as error:
            raise ContentRuleFailed from error
        for event in events:
            yield from self._event(event)

    def end(self) -> bytes:
        """What was still held back: the stream is over."""
        rest = self._splitter.rest()
        last = list(self._event(rest + b"\n\n")) if rest.strip() else []
        return b"".join([*last, *self._flush(())])

    def _event(self, raw: bytes) -> Iterator[bytes]:
        data = event_data(raw)
        if data is None:
            yield raw
            return
        if data == _DONE:
            yield from self._flush(())
            yield raw
            return
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise ContentRuleFailed from error
        if not isinstance(event, dict):
            raise ContentRuleFailed
        yield from self._read(event)

    # Chat completions: every chunk may carry a piece of every choice, and the last piece goes with the finish_reason.

    def _chat(self, event: _Event) -> Iterator[bytes]:
        for choice in event.get("choices") or ():
            if not isinstance(choice, dict):
                continue
            place = (choice.get("index"),)
            delta = choice.get("delta")
            if isinstance(delta, dict):
                yield from self._chat_delta(event, choice, delta, place)
            if choice.get("logprobs"):
                choice["logprobs"] = None  # it spells the text out, token by token
            if choice.get("finish_reason"):
                yield from self._flush(place)
        yield _written(event)

    def _chat_delta(self, event: _Event, choice: _Event, delta: _Event, place: _Place) -> Iterator[bytes]:
        empty = {name: value for name, value in event.items() if name != "usage"}
        for name in _CHAT_TEXTS:
            if isinstance(delta.get(name), str):
                again = {**empty, "choices": [{**choice, "delta": {}, "finish_reason": None, "logprobs": None}]}
                delta[name] = yield from self._held((*place, name), delta[name], again)
        audio = delta.get("audio")
        if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
            again = {**empty, "choices": [{**choice, "delta": {}, "finish_reason": None}]}
            audio["transcript"] = yield from self._held((*place, "audio"), audio["transcript"], again)
        for call in delta.get("tool_calls") or ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                again = {**empty, "choices": [{**choice, "delta": {}, "finish_reason": None, "logprobs": None}]}
                self._hold_arguments((*place, "tool", call.get("index")), function["arguments"], again)
                function["arguments"] = ""

    # Messages: blocks come one after the other, each with its deltas and a stop.

    def _messages(self, event: _Event) -> Iterator[bytes]:
        kind, place = event.get("type"), (event.get("index"),)
        delta = event.get("delta")
        if kind == "content_block_delta" and isinstance(delta, dict):
            if isinstance(delta.get("partial_json"), str):
                self._hold_arguments((*place, "json"), delta["partial_json"], event)
                return
            name = _MESSAGE_TEXTS.get(str(delta.get("type")))
            if name is not None and isinstance(delta.get(name), str):
                delta[name] = yield from self._held((*place, name), delta[name], event)
            yield _written(event)
            return
        if kind == "content_block_stop":
            yield from self._flush(place)
        elif kind == "message_stop":
            yield from self._flush(())
        yield _written((yield from self._rewritten(event)))

    # Responses: deltas of one part of one item, then events that repeat the whole of it.

    def _responses(self, event: _Event) -> Iterator[bytes]:
        kind = str(event.get("type"))
        place = (event.get("output_index"), event.get("item_id"))
        delta = event.get("delta")
        if isinstance(delta, str) and kind.endswith(".delta") and "audio.delta" not in kind:
            inner = (*place, kind, event.get("content_index"), event.get("summary_index"))
            if "arguments" in kind:
                self._hold_arguments(inner, delta, event)
                return
            event["delta"] = yield from self._held(inner, delta, event)
            if event.get("logprobs"):
                event["logprobs"] = []
            yield _written(event)
            return
        if kind.endswith(".done"):
            item = event.get("item")
            item_id = event.get("item_id") or (item.get("id") if isinstance(item, dict) else None)
            yield from self._flush((event.get("output_index"), item_id))
        elif kind.startswith("response.") and "response" in event:
            yield from self._flush(())
        yield _written((yield from self._rewritten(event)))

    def _held(self, place: _Place, piece: str, event: _Event) -> Generator[bytes, None, str]:
        text, _ = self._texts.get(place) or (HeldText(), event)
        self._texts[place] = (text, event)
        passed = ""
        for slice_ in slices(piece):
            yield b""
            certain, kinds = text.feed(slice_)
            passed += certain
            self._counted(kinds)
        return passed

    def _hold_arguments(self, place: _Place, piece: str, event: _Event) -> None:
        before, _ = self._arguments.get(place) or ("", event)
        if len(before) + len(piece) > _MAX_ARGUMENT_CHARACTERS:
            raise ContentRuleFailed
        self._arguments[place] = (before + piece, event)

    def _flush(self, within: _Place) -> Iterator[bytes]:
        """What is held back of everything within this place, as events like those it came in."""
        for place in [place for place in self._texts if place[: len(within)] == within]:
            held, event = self._texts.pop(place)
            passed, kinds = held.flush()
            self._counted(kinds)
            if passed:
                yield _written(_with_text(event, place, passed))
        for place in [place for place in self._arguments if place[: len(within)] == within]:
            arguments, event = self._arguments.pop(place)
            if arguments:
                redaction = Redaction()
                whole = yield from self._done(rewrite_json_text(arguments, redaction), redaction)
                yield _written(_with_arguments(event, place, whole))

    def _rewritten(self, event: _Event) -> Generator[bytes, None, _Event]:
        redaction = Redaction()
        seen: _Event = without_logprobs((yield from self._done(rewrite_texts(event, redaction), redaction)))
        return seen

    def _done(self, steps: Steps[T], redaction: Redaction) -> Generator[bytes, None, T]:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                self._counted(redaction.kinds.elements())
                seen: T = end.value
                return seen
            yield b""


def without_logprobs(value: Any) -> Any:  # Any: whatever JSON the provider sent
    """The same, without the probabilities that spell its texts out token by token."""
    if isinstance(value, list):
        return [without_logprobs(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        name: ([] if isinstance(inner, list) else None) if name == "logprobs" else without_logprobs(inner)
        for name, inner in value.items()
    }


def _with_text(event: _Event, place: _Place, text: str) -> _Event:
    if "choices" in event:
        [choice] = event["choices"]
        name = str(place[1])
        delta = {"audio": {"transcript": text}} if name == "audio" else {name: text}
        return {**event, "choices": [{**choice, "delta": delta}]}
    if isinstance(event["delta"], dict):
        return {**event, "delta": {**event["delta"], str(place[1]): text}}
    return {**event, "delta": text}


def _with_arguments(event: _Event, place: _Place, arguments: str) -> _Event:
    if "choices" in event:
        [choice] = event["choices"]
        call = {"index": place[2], "function": {"arguments": arguments}}
        return {**event, "choices": [{**choice, "delta": {"tool_calls": [call]}}]}
    if isinstance(event["delta"], dict):
        return {**event, "delta": {**event["delta"], "partial_json": arguments}}
    return {**event, "delta": arguments}


def _written(event: _Event) -> bytes:
    """The event as its format writes it: with its type in a line of its own where it has one."""
    kind = event.get("type")
    name = b"event: %s\n" % kind.encode() if isinstance(kind, str) else b""
    return b"%sdata: %s\n\n" % (name, orjson.dumps(event))
