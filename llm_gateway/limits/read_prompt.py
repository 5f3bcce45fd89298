"""How many tokens of a prompt its model reads, for a call whose provider did not come to say it: close, and not below.

What bounds a prompt (exact_prompt.py) counts every name and number of its JSON; here only what a template puts before
the model counts, and what the template itself adds. Of OpenAI's templates that is known: three tokens and the role a
message, three before the answer, one before a name. Source: OpenAI cookbook, "How to count tokens with tiktoken".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from llm_gateway.limits.estimate import TOKENS_A_CALL, TOKENS_A_MESSAGE
from llm_gateway.limits.exact_prompt import NO_TEXT, text_tokens
from llm_gateway.limits.tool_declarations import declared

# What OpenAI's template adds. Tools stand within the system's message, so that it costs nothing more of its own.
_A_CALL: Final = 3
_A_MESSAGE: Final = 4
_A_NAME: Final = 1
_TOOLS: Final = 9
# What nobody has documented, and has been seen to be less: a tool that was called, a schema for the answer.
_A_TOOLS_CALL: Final = 8
_A_SCHEMA: Final = 16

_MESSAGES: Final = ("messages", "input")
_TEXTS: Final = ("system", "instructions")
_TOOL_LISTS: Final = ("tools", "functions")
_SCHEMAS: Final = ("response_format", "text", "output_config", "output_format")
# Fields of messages and parts that no template shows to a model.
_NOT_READ: Final = frozenset(
    {
        "cache_control", "call_id", "citations", "detail", "id", "index", "is_error", "media_type", "role", "status",
        "tool_call_id", "tool_use_id", "type",
    }
)  # fmt: skip


@dataclass(slots=True)
class _Read:
    """What a model reads of a request: texts, and what a template has around them."""

    texts: list[str]
    messages: int = 0
    framing: int = 0
    has_system: bool = False

    def add_messages(self, given: object) -> None:
        for message in given if isinstance(given, list) else [given]:
            self.messages += 1
            if not isinstance(message, dict):
                self.texts.append(message if isinstance(message, str) else _json(message))
                continue
            self.has_system |= message.get("role") == "system"
            for name, value in message.items():
                if name in _NOT_READ or value is None:
                    continue
                self.framing += _A_NAME if name == "name" else 0
                if name == "tool_calls":
                    self.framing += _A_TOOLS_CALL * (len(value) if isinstance(value, list) else 1)
                self.add(value)

    def add(self, value: object) -> None:
        """A content: a text, or parts."""
        if isinstance(value, str):
            self.texts.append(value)
        elif isinstance(value, list):
            for part in value:
                self.add(part)
        elif isinstance(value, dict):
            no_text = NO_TEXT.get(str(value.get("type")))
            for name, inner in value.items():
                if name == "source":
                    self._add_source(inner)
                elif name in {"arguments", "input", "parameters"} and not isinstance(inner, str):
                    self.texts.append(_json(inner))
                elif name != no_text and name not in _NOT_READ:
                    self.add(inner)
        elif value is not None:
            self.texts.append(_json(value))

    def _add_source(self, source: object) -> None:
        """A document's, if it is text; what is not was bounded by its kind."""
        kind = source.get("type") if isinstance(source, dict) else None
        if isinstance(source, dict) and kind in {"text", "content"}:
            self.add(source.get("data") or source.get("content"))


def read_prompt_tokens(body: Mapping[str, object], tokenizer: str, *, template_known: bool) -> int:
    """So many tokens has the prompt in this body, in whatever format, without its pictures and sounds.

    `template_known`: it is OpenAI's; else as much is added as templates add at most. Blocks for as long as counting
    takes. Raises: VocabularyMissing.
    """
    read = _Read([])
    for name in _MESSAGES:
        if body.get(name) is not None:
            read.add_messages(body[name])
    for name in _TEXTS:
        if body.get(name):
            read.messages += 1
            read.has_system = True
            read.add(body[name])
    for name in _TOOL_LISTS:
        if isinstance(tools := body.get(name), list) and tools:
            read.texts.append(declared(tools))
            read.framing += _TOOLS - (_A_MESSAGE if read.has_system else 0)
    for name in _SCHEMAS:
        if isinstance(body.get(name), dict) and '"schema"' in (shape := _json(body[name])):
            read.texts.append(shape)
            read.framing += _A_SCHEMA
    a_call, a_message = (_A_CALL, _A_MESSAGE) if template_known else (TOKENS_A_CALL, TOKENS_A_MESSAGE)
    return a_call + a_message * read.messages + read.framing + text_tokens(read.texts, tokenizer)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
