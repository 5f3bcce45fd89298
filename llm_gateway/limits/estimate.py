"""The most a call can use, read off its body before it is made. Pure, and wrong only upwards.

A byte-level tokenizer makes at most one token of each UTF-8 byte, so bytes bound tokens without counting any: the JSON
text of a message has at least as many bytes as what the model reads of it. On top come what chat templates add, and
pictures. What cannot be bounded is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from core.errors import InvalidInput
from llm_gateway.accounting import Most

TOKENS_A_CALL: Final = 64  # a default system prompt, begin and end marks, the answer's opening
TOKENS_A_MESSAGE: Final = 16  # role marks; templates in use need 3 to 7
TOKENS_FOR_TOOLS: Final = 1024  # the vendors' own instructions for calling tools: 300 to 700 tokens
MOST_CHOICES: Final = 16

_TEXT_PARTS: Final = frozenset({"text", "refusal"})
# Fields that make a call cost more than its tokens at the model's price.
_UNBOUNDED_FIELDS: Final = {
    "audio": "Audio output",
    "data_sources": "Searching in data",  # Azure puts what it finds into the prompt
    "enable_search": "Searching the web",  # Qwen
    "search_parameters": "Searching the web",  # xAI
    "web_search_options": "Searching the web",
    "cache_control": "Writing to the provider's cache",  # costs up to twice what reading the prompt does (Anthropic)
}
_ORDINARY_SERVICE_TIERS: Final = frozenset({None, "auto", "default", "standard_only", "flex"})


class UnboundedCall(InvalidInput):
    """Nobody can say before the call what it will use at most, so no limit could hold."""

    default_code = "unsupported_content"


@dataclass(frozen=True, slots=True)
class ModelBounds:
    """What the model itself bounds, tokens. `image_tokens` is the most one picture counts for; None: no pictures."""

    context_window: int
    max_output_tokens: int
    image_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Upper bounds, tokens. `max_output_tokens` is for each of `choices`, and what the provider must be told."""

    prompt_tokens: int
    max_output_tokens: int
    choices: int
    predicted_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        """Of all choices together, with what was predicted and may be charged as written (OpenAI's `prediction`)."""
        return (self.max_output_tokens + self.predicted_tokens) * self.choices

    @property
    def tokens(self) -> int:
        """What to hold."""
        return self.prompt_tokens + self.output_tokens

    @property
    def most(self) -> Most:
        """What to price."""
        return Most(prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens)


def estimate_chat(body: Mapping[str, object], bounds: ModelBounds) -> Estimate:
    """The most that this chat completion request (OpenAI's format) can use.

    Raises: InvalidInput naming the field that is wrong; UnboundedCall for what has no bound.
    """
    refuse_unbounded(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("`messages` must be a list with at least one message.", details={"param": "messages"})
    prompt = TOKENS_A_CALL + sum(
        _message_tokens(message, position, bounds) for position, message in enumerate(messages)
    )
    prompt += json_bytes({name: value for name, value in body.items() if name != "messages"})
    if body.get("tools") or body.get("functions"):
        prompt += TOKENS_FOR_TOOLS
    return Estimate(
        # a longer prompt does not fit the model: the provider refuses it, or cuts it to this
        prompt_tokens=min(prompt, bounds.context_window),
        max_output_tokens=_max_output_tokens(body, bounds),
        choices=_choices(body),
        predicted_tokens=0 if body.get("prediction") is None else json_bytes(body["prediction"]),
    )


def refuse_unbounded(body: Mapping[str, object]) -> None:
    """No field of the body makes the call cost more than its tokens do. Raises: UnboundedCall."""
    for field, what in _UNBOUNDED_FIELDS.items():
        if body.get(field) is not None:
            raise UnboundedCall(f"{what} is not supported here: leave out `{field}`.", details={"param": field})
    if body.get("modalities") not in (None, ["text"]):
        raise UnboundedCall(
            'Only text is written here: leave out `modalities`, or send `["text"]`.', details={"param": "modalities"}
        )
    _refuse_cache_writes(body)
    tier = body.get("service_tier")
    if not (tier is None or isinstance(tier, str)) or tier not in _ORDINARY_SERVICE_TIERS:
        raise UnboundedCall(
            "Only the ordinary service tier has a price here: leave out `service_tier`.",
            details={"param": "service_tier"},
        )


def _refuse_cache_writes(body: Mapping[str, object]) -> None:
    """Messages, their parts, tools and what they call are where vendors look for `cache_control`; schemas are not."""
    for name in ("messages", "tools"):
        entries = body.get(name)
        for position, entry in enumerate(entries if isinstance(entries, list) else ()):
            inner = [entry.get("content"), entry.get("function")] if isinstance(entry, dict) else []
            places = [entry, *(part for one in inner for part in (one if isinstance(one, list) else [one]))]
            if any(isinstance(place, dict) and place.get("cache_control") is not None for place in places):
                raise UnboundedCall(
                    "Writing to the provider's cache has no price here: leave out `cache_control`.",
                    details={"param": f"{name}[{position}]"},
                )


def _message_tokens(message: object, position: int, bounds: ModelBounds) -> int:
    if not isinstance(message, dict):
        raise InvalidInput(f"`messages[{position}]` must be an object.", details={"param": f"messages[{position}]"})
    if message.get("audio") is not None:
        raise UnboundedCall("This model takes no audio here.", details={"param": f"messages[{position}].audio"})
    content = message.get("content")
    if not isinstance(content, list):
        return TOKENS_A_MESSAGE + json_bytes(message)
    rest = {name: value for name, value in message.items() if name != "content"}
    return TOKENS_A_MESSAGE + json_bytes(rest) + _parts_tokens(content, f"messages[{position}].content", bounds)


def _parts_tokens(parts: Sequence[object], where: str, bounds: ModelBounds) -> int:
    tokens = 0
    for position, part in enumerate(parts):
        fields: dict[str, object] = part if isinstance(part, dict) else {}
        kind = fields.get("type")
        if isinstance(kind, str) and kind in _TEXT_PARTS:
            tokens += json_bytes(fields)
        elif kind == "image_url" and bounds.image_tokens is not None:
            tokens += bounds.image_tokens + json_bytes({name: value for name, value in fields.items() if name != kind})
        else:
            shown = kind if isinstance(kind, str) else "?"
            raise UnboundedCall(
                f"This model takes no content of type `{shown[:64]}` here.", details={"param": f"{where}[{position}]"}
            )
    return tokens


def _max_output_tokens(body: Mapping[str, object], bounds: ModelBounds) -> int:
    """What the caller asks for, at most what the model can; all the model can for a caller who does not say."""
    asked = [positive(body, name) for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    return min(max(asked, default=bounds.max_output_tokens), bounds.max_output_tokens)


def _choices(body: Mapping[str, object]) -> int:
    choices = 1
    for name in ("n", "best_of"):
        if body.get(name) is not None:
            choices = max(choices, positive(body, name))
            if choices > MOST_CHOICES:
                raise InvalidInput(f"`{name}` must be at most {MOST_CHOICES}.", details={"param": name})
    return choices


def positive(body: Mapping[str, object], name: str) -> int:
    """The value of a field that is there. Raises: InvalidInput unless it is a whole number above zero."""
    number = body[name]
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidInput(f"`{name}` must be a whole number of at least 1.", details={"param": name})
    return number


def json_bytes(value: object) -> int:
    """How many bytes the value has as compact JSON in UTF-8: at least as many as there are in its strings."""
    try:
        return len(orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        raise InvalidInput(
            "The body contains text that is not valid Unicode, a number of more than 64 bits, or is nested too deeply."
        ) from error
