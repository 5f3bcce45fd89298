"""Which answers may be given again: whole ones that the model itself ended, of requests that leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from llm_gateway.wire.format import FormatRequest
from llm_gateway.wire.sse import SseSplitter, event_data

MAX_ANSWER_BYTES: Final = 1024 * 1024 - 64  # with what encryption adds, what a row may have
CACHEABLE: Final = frozenset({"chat", "responses", "embeddings", "messages"})

# The model said all it wanted to say. Cut at a maximum, filtered, refused or paused is not the end.
_FINAL: Final = frozenset({"stop", "tool_calls", "function_call", "end_turn", "stop_sequence", "tool_use"})
# Requests whose answer refers to something that is kept, or made, elsewhere.
_STATEFUL: Final = frozenset({"background", "conversation", "previous_response_id"})

_Json = dict[str, Any]  # Any: whatever JSON the provider sent


def may_be_cached(endpoint: str, request: FormatRequest) -> bool:
    """Whether an answer to this request means the same a second time."""
    return endpoint in CACHEABLE and not any(request.body.get(name) for name in _STATEFUL)


def is_final(endpoint: str, *, stream: bool, raw: bytes) -> bool:
    """The answer is whole, and every part of it was ended by the model. False for what cannot be read."""
    try:
        events = list(_events(raw)) if stream else [orjson.loads(raw)]
    except orjson.JSONDecodeError:
        return False
    if not events or not all(isinstance(event, dict) for event in events):
        return False
    read = {"chat": _chat, "messages": _messages, "responses": _responses, "embeddings": _embeddings}
    return read[endpoint](events, stream)


def _chat(events: list[_Json], stream: bool) -> bool:
    reasons: dict[object, object] = {}
    for event in events:
        if "error" in event:
            return False
        for choice in event.get("choices") or ():
            index = choice.get("index")
            reasons[index] = choice.get("finish_reason") or reasons.get(index)
    return bool(reasons) and all(reason in _FINAL for reason in reasons.values())


def _messages(events: list[_Json], stream: bool) -> bool:
    if not stream:
        return events[0].get("stop_reason") in _FINAL
    reasons = [event["delta"].get("stop_reason") for event in events if event.get("type") == "message_delta"]
    return bool(reasons) and reasons[-1] in _FINAL and events[-1].get("type") == "message_stop"


def _responses(events: list[_Json], stream: bool) -> bool:
    response = events[-1].get("response") if stream else events[0]
    return isinstance(response, dict) and response.get("status") == "completed"


def _embeddings(events: list[_Json], stream: bool) -> bool:
    return bool(events[0].get("data"))


def _events(raw: bytes) -> Iterator[Any]:  # Any: as above
    splitter = SseSplitter(max_event_bytes=len(raw) + 1)
    for event in [*splitter.feed(raw), splitter.rest()]:
        data = event_data(event) if event.strip() else None
        if data is not None and data.strip() != b"[DONE]":
            yield orjson.loads(data)
