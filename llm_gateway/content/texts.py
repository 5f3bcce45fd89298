"""Every text within a request or an answer, whatever its format, rewritten in place of itself, in short steps.

What is not known to be something else is a text: a field that a vendor adds tomorrow is looked at, too. Names, ids,
addresses of pictures and encoded files are not, and neither is what is inside of those files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import orjson

from llm_gateway.content.steps import Steps


class Rewriting(Protocol):
    """What becomes of texts. Each method gives the very text it was given where nothing is to change."""

    def text(self, text: str) -> Steps[str]:
        """Of one text."""
        ...

    def across(self, texts: Sequence[str]) -> Steps[list[str]]:
        """Of texts that are read as one, each of which has been rewritten: what begins in one and ends in another."""
        ...


# Strings under these names are words of the format, ids, or bytes in base64. (What a tool takes or gives is looked at
# under any name: see `rewrite_values`.)
_NO_TEXTS: Final = frozenset(
    """
    call_id conversation data detail effort encrypted_content encoding_format file_data file_id file_url finish_reason
    format id image_url item_id media_type mime_type model object previous_response_id role service_tier signature
    status stop_reason system_fingerprint thinking_signature tool_call_id tool_use_id type url
    """.split()  # noqa: SIM905 -- one word a line reads worse
)
# What a model, a tool or a client's own program filled in: objects whose fields have no meaning to the format.
_VALUES: Final = frozenset({"input", "metadata", "variables"})
_JSON_TEXTS: Final = frozenset({"arguments"})
# Integers shorter than this are no personal data in themselves.
_SHORTEST_NUMBER: Final = 10**12
# Parts of a message that a model reads one after the other as one text.
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
_MOST_READ_AS_ONE: Final = 256
# After so many entries of a list or an object somebody else may have a turn.
_STEP_ENTRIES: Final = 64


def rewrite_texts(value: Any, rewriting: Rewriting) -> Steps[Any]:  # Any: whatever JSON the client or the provider sent
    """The same, with each of its texts rewritten; the object itself where no text changed."""
    if isinstance(value, str):
        return (yield from rewriting.text(value))
    if isinstance(value, list):
        return (yield from _list(value, rewriting))
    if not isinstance(value, dict):
        return value
    changed: dict[str, Any] = {}  # Any: as above
    for number, (name, inner) in enumerate(value.items(), 1):
        if not number % _STEP_ENTRIES:
            yield
        seen = yield from _field(value, name, inner, rewriting)
        if seen is not inner:
            changed[name] = seen
    return {**value, **changed} if changed else value


def rewrite_values(value: Any, rewriting: Rewriting) -> Steps[Any]:  # Any: whatever JSON a tool takes or gives
    """The same, with every string, every name of a field and every long number in it rewritten."""
    if isinstance(value, str):
        return (yield from rewriting.text(value))
    if isinstance(value, list):
        items, changed = [], False
        for number, inner in enumerate(value, 1):
            if not number % _STEP_ENTRIES:
                yield
            items.append((yield from rewrite_values(inner, rewriting)))
            changed = changed or items[-1] is not inner
        return items if changed else value
    if isinstance(value, dict):
        fields: dict[str, Any] = {}  # Any: as above
        for number, (name, inner) in enumerate(value.items(), 1):
            if not number % _STEP_ENTRIES:
                yield
            fields[(yield from rewriting.text(name))] = yield from rewrite_values(inner, rewriting)
        return fields if fields != value else value
    if isinstance(value, int) and abs(value) >= _SHORTEST_NUMBER:
        written = yield from rewriting.text(str(value))
        return value if written == str(value) else written
    return value


def rewrite_json_text(text: str, rewriting: Rewriting) -> Steps[str]:
    """The JSON that a model wrote for a tool, its values rewritten; as a plain text where it is no JSON."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return (yield from rewriting.text(text))
    seen = yield from rewrite_values(value, rewriting)
    return text if seen is value else orjson.dumps(seen).decode()


def _field(owner: dict[str, Any], name: str, inner: Any, rewriting: Rewriting) -> Steps[Any]:  # Any: as above
    if isinstance(inner, str):
        if name in _JSON_TEXTS:
            return (yield from rewrite_json_text(inner, rewriting))
        if name in _NO_TEXTS and not (name == "data" and _is_text_source(owner)):
            return inner
        return (yield from rewriting.text(inner))
    if name in _VALUES and isinstance(inner, dict):
        return (yield from rewrite_values(inner, rewriting))
    return (yield from rewrite_texts(inner, rewriting))


def _is_text_source(owner: dict[str, Any]) -> bool:  # Any: as above
    """An Anthropic document whose data is a text, not a file: {"type": "text", "media_type": "text/plain", "data"}."""
    return owner.get("type") == "text" or str(owner.get("media_type")).startswith("text/")


def _list(value: list[Any], rewriting: Rewriting) -> Steps[list[Any]]:  # Any: as above
    items: list[Any] = []  # Any: as above
    changed, read_as_one = False, 0  # so many of the last items
    for number, inner in enumerate(value, 1):
        if not number % _STEP_ENTRIES:
            yield
        seen = yield from rewrite_texts(inner, rewriting)
        changed = changed or seen is not inner
        is_part = _is_text_part(seen)
        if read_as_one > 1 and (not is_part or read_as_one == _MOST_READ_AS_ONE):
            changed |= yield from _rewrite_across(items, read_as_one, rewriting)
        read_as_one = (read_as_one % _MOST_READ_AS_ONE) + 1 if is_part else 0
        items.append(seen)
    if read_as_one > 1:
        changed |= yield from _rewrite_across(items, read_as_one, rewriting)
    return items if changed else value


def _rewrite_across(items: list[Any], count: int, rewriting: Rewriting) -> Steps[bool]:  # Any: as above
    """The last so many parts are without what begins in one and ends in another; whether there was any."""
    begins, changed = len(items) - count, False
    texts = yield from rewriting.across([part["text"] for part in items[begins:]])
    for position, text in enumerate(texts, begins):
        if text != items[position]["text"]:
            items[position] = {**items[position], "text": text}
            changed = True
    return changed


def _is_text_part(value: Any) -> bool:  # Any: as above
    return isinstance(value, dict) and value.get("type") in _TEXT_PARTS and isinstance(value.get("text"), str)
