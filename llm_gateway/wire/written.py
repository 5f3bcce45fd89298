"""What a model has written into an answer, whatever the fields are called: for when nobody reports what it used.

Fields that a format names are text, and bound what may pass of an answer. What stands in fields that no format names
counts as well, because vendors invent fields for what they charge: only what is known to be a server's own (ids,
signatures, citations) does not. Of sound and pictures nobody can read off how many tokens they were: `has_media` says
that there are some.
"""

from __future__ import annotations

from typing import Final

import orjson

# Beside the model's words.
_SERVERS: Final = frozenset(
    """
    annotations cache_control call_id caller citations cited_text created_at expires_at format id index item_id logprobs
    namespace object phase role server signature status tool_call_id tool_use_id type
    """.split()  # noqa: SIM905 -- one word a line reads worse
)
_TEXTS: Final = frozenset({"content", "refusal"})
# The same thoughts under the names of several vendors, and often under two of them at once.
_THOUGHTS: Final = frozenset({"reasoning", "reasoning_content", "reasoning_details", "thinking_blocks"})
_MEDIA: Final = frozenset({"audio", "b64_json", "image", "image_url", "images", "partial_image_b64", "video"})
_ARGUMENTS: Final = frozenset({"arguments", "input"})
# What a model writes around a call of a tool, beside its name: about eight tokens.
_AROUND_A_CALL_BYTES: Final = 24


class Written:
    """The text of an answer or of one event of it, and what there is beside. Units: bytes of UTF-8."""

    __slots__ = ("has_media", "other_bytes", "text")

    def __init__(self) -> None:
        self.text = b""
        self.other_bytes = 0
        self.has_media = False

    def add_message(self, message: object) -> None:
        """A chat completion's message, or a delta of one."""
        thoughts = b""
        for name, value in message.items() if isinstance(message, dict) else ():
            if not value:
                continue
            if name in _TEXTS:
                self.text += text_of(value)
            elif name in _THOUGHTS:
                thoughts = max(thoughts, text_of(value), key=len)
            elif name == "tool_calls" and isinstance(value, list):
                for call in value:
                    self._add_call(call)
            elif name == "function_call":
                self._add_call({"function": value})
            else:
                self.add_other({name: value})
        self.text += thoughts

    def add_other(self, value: object) -> None:
        """All that the model may have written in here, wherever it stands."""
        if isinstance(value, dict):
            for name, inner in value.items():
                if name in _MEDIA and inner:
                    self._add_media(inner)
                elif name == "name" and isinstance(inner, str) and inner:
                    self.other_bytes += len(text_of(inner)) + _AROUND_A_CALL_BYTES
                elif name in _ARGUMENTS and isinstance(inner, dict):
                    self.other_bytes += len(orjson.dumps(inner)) if inner else 0
                elif name not in _SERVERS:
                    self.add_other(inner)
        elif isinstance(value, list):
            for inner in value:
                self.add_other(inner)
        elif isinstance(value, str):
            self.other_bytes += len(text_of(value))

    def _add_call(self, call: object) -> None:
        """What is written for a tool bounds what may pass; its name is written, too, and nobody limits names."""
        for name, value in call.items() if isinstance(call, dict) else ():
            if name in {"function", "custom"} and isinstance(value, dict):
                self.text += text_of(value.get("arguments")) + text_of(value.get("input"))
                self.add_other({"name": value.get("name")})
            else:
                self.add_other({name: value})

    def _add_media(self, value: object) -> None:
        self.has_media = True
        if isinstance(value, dict):
            self.other_bytes += len(text_of(value.get("transcript")))


def text_of(value: object) -> bytes:
    """A text in UTF-8, or all texts within parts (Mistral streams what its models think as a list of them)."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, list):
        return b"".join(map(text_of, value))
    if isinstance(value, dict):
        return b"".join(text_of(part) for name, part in value.items() if name not in _SERVERS)
    return b""
