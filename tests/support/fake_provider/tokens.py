"""How the fake provider counts tokens: a rule that a person can apply by eye.

- Text: one token for each word (a run of characters without blanks); the blanks before a word belong to it.
- JSON (tool definitions, tool calls, schemas): one token for every four characters of its compact form, rounded up.
- An image: 85 tokens. A message: 3 tokens besides its content.
"""

import re

import orjson

IMAGE_TOKENS = 85
MESSAGE_TOKENS = 3
JSON_CHARACTERS_PER_TOKEN = 4

_WORD = re.compile(r"\s*\S+(?:\s+\Z)?|\s+\Z")
_IMAGE_PARTS = frozenset({"image", "image_url", "input_image"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


def text_pieces(text: str) -> tuple[str, ...]:
    """The text cut into its tokens; joined they are the text again."""
    return tuple(_WORD.findall(text))


def json_pieces(json_text: str) -> tuple[str, ...]:
    """JSON text cut into its tokens; joined they are the text again."""
    step = JSON_CHARACTERS_PER_TOKEN
    return tuple(json_text[start : start + step] for start in range(0, len(json_text), step))


def count_text(text: str) -> int:
    """The number of tokens of `text`."""
    return len(text_pieces(text))


def count_json(value: object) -> int:
    """The number of tokens of a JSON value, none for None and for what is empty."""
    if not value:
        return 0
    return -(-len(orjson.dumps(value).decode()) // JSON_CHARACTERS_PER_TOKEN)


def count_content(content: object) -> int:
    """The number of tokens of a message's content: a text, or a list of parts in OpenAI's or Anthropic's shape."""
    if isinstance(content, str):
        return count_text(content)
    if not isinstance(content, list):
        return 0
    return sum(_count_part(part) for part in content)


def _count_part(part: object) -> int:
    if isinstance(part, dict):
        kind = part.get("type")
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            return count_text(part["text"])
        if kind in _IMAGE_PARTS:
            return IMAGE_TOKENS
    return count_json(part)


def count_messages(messages: object) -> int:
    """The number of tokens of a list of messages, their tool calls included."""
    if not isinstance(messages, list):
        return 0
    total = 0
    for message in messages:
        if isinstance(message, dict):
            total += MESSAGE_TOKENS + count_content(message.get("content")) + count_json(message.get("tool_calls"))
        else:
            total += MESSAGE_TOKENS + count_json(message)
    return total
