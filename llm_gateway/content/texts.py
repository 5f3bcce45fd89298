"""Every text within a request or an answer, whatever its format, rewritten in place of itself.

What is not known to be something else is a text: a field that a vendor adds tomorrow is looked at, too. Names, ids,
addresses of pictures and encoded files are not, and neither is what is inside of those files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

Rewrite = Callable[[str], str]

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


def rewrite_texts(value: Any, rewrite: Rewrite) -> Any:  # Any: whatever JSON the client or the provider sent
    """The same, with each of its texts as `rewrite` has it; the object itself where no text changed."""
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, list):
        return _items(value, lambda inner: rewrite_texts(inner, rewrite))
    if not isinstance(value, dict):
        return value
    changed: dict[str, Any] = {}  # Any: as above
    for name, inner in value.items():
        seen = _field(value, name, inner, rewrite)
        if seen is not inner:
            changed[name] = seen
    return {**value, **changed} if changed else value


def rewrite_values(value: Any, rewrite: Rewrite) -> Any:  # Any: whatever JSON a tool takes or gives
    """The same, with every string, every name of a field and every long number in it as `rewrite` has it."""
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, list):
        return _items(value, lambda inner: rewrite_values(inner, rewrite))
    if isinstance(value, dict):
        seen = {rewrite(name): rewrite_values(inner, rewrite) for name, inner in value.items()}
        return seen if seen != value else value
    if isinstance(value, int) and abs(value) >= _SHORTEST_NUMBER:
        written = rewrite(str(value))
        return value if written == str(value) else written
    return value


def rewrite_json_text(text: str, rewrite: Rewrite) -> str:
    """The JSON that a model wrote for a tool, its values rewritten; as a plain text where it is no JSON."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return rewrite(text)
    seen = rewrite_values(value, rewrite)
    return text if seen is value else orjson.dumps(seen).decode()


def _field(owner: dict[str, Any], name: str, inner: Any, rewrite: Rewrite) -> Any:  # Any: as above
    if isinstance(inner, str):
        if name in _JSON_TEXTS:
            return rewrite_json_text(inner, rewrite)
        if name in _NO_TEXTS and not (name == "data" and _is_text_source(owner)):
            return inner
        return rewrite(inner)
    if name in _VALUES and isinstance(inner, dict):
        return rewrite_values(inner, rewrite)
    return rewrite_texts(inner, rewrite)


def _is_text_source(owner: dict[str, Any]) -> bool:  # Any: as above
    """An Anthropic document whose data is a text, not a file: {"type": "text", "media_type": "text/plain", "data"}."""
    return owner.get("type") == "text" or str(owner.get("media_type")).startswith("text/")


def _items(value: list[Any], rewrite_one: Callable[[Any], Any]) -> list[Any]:  # Any: as above
    seen = [rewrite_one(inner) for inner in value]
    unchanged = all(new is old for new, old in zip(seen, value, strict=True))
    return value if unchanged else seen
