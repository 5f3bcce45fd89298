"""What every format gives the player: how to read a call, answer it, stream it and refuse it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import orjson

from tests.support.fake_provider.answer import Answer, Call, JsonObject


class RequestInvalid(ValueError):
    """The provider would refuse this request with 400; the text says why."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event. `output_tokens` of the answer travel in it: more than none makes it a chunk."""

    data: bytes
    output_tokens: int = 0
    reports_usage: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """One endpoint's format; all functions are pure. What is `free` is on the bill without tokens."""

    id_header: str
    headers: Mapping[str, str]
    read_call: Callable[[JsonObject], Call]
    reply: Callable[[Call, Answer], JsonObject]
    events: Callable[[Call, Answer], Iterator[Event]]
    error: Callable[[int, str], JsonObject]
    error_event: Callable[[str], bytes]
    reports_usage: Callable[[JsonObject], bool]
    has_output: bool = True
    free: bool = False


def data_event(payload: JsonObject) -> bytes:
    """An unnamed server-sent event."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def named_event(payload: JsonObject) -> bytes:
    """A server-sent event named as its payload's type."""
    return b"event: " + str(payload["type"]).encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"


def required_text(body: JsonObject, name: str) -> str:
    """The text field of this name.

    Raises: RequestInvalid when it is missing, empty or no text.
    """
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise RequestInvalid(f"Missing required parameter: '{name}'.")
    return value


def optional_count(body: JsonObject, *names: str) -> int | None:
    """The first of these fields that is given.

    Raises: RequestInvalid when it is not a positive integer.
    """
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RequestInvalid(f"Invalid '{name}': integer below minimum value. Expected a value >= 1.")
        return value
    return None


def last_user_text(messages: object) -> str:
    """The text of the last message whose role is user, empty when there is none."""
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return _content_text(message.get("content"))
    return ""


def _content_text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def inner_object(value: object, *path: str) -> JsonObject:
    """The JSON object found by following the path, empty when any part of it is missing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def objects_in(value: object) -> list[JsonObject]:
    """The JSON objects of a list, empty when it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
