"""The most a call can use, read off its body before it is made. Pure, and wrong only upwards.

A byte-level tokenizer makes at most one token of each UTF-8 byte, so bytes bound tokens without counting any: the JSON
text of a message has at least as many bytes as what the model reads of it. On top come what chat templates add,
pictures and sound. What cannot be bounded is refused. Where the bound of the bytes does not fit a limit, the text can
be counted instead (exact_prompt.py).

What is the same for every format is here; each has its own walk through the body: estimate_chat.py,
estimate_messages.py, wire/openai_responses_input.py, wire/openai_embeddings.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson

from core.errors import InvalidInput
from llm_gateway.accounting import Most

TOKENS_A_CALL: Final = 64  # a default system prompt, begin and end marks, the answer's opening
TOKENS_A_MESSAGE: Final = 16  # role marks; templates in use need 3 to 7
TOKENS_FOR_TOOLS: Final = 1024  # the vendors' own instructions for calling tools: 300 to 700 tokens
MOST_CHOICES: Final = 16

# Fields that make a call cost more than its tokens at the model's price.
_UNBOUNDED_FIELDS: Final = {
    "audio": "Audio output",
    "cache_control": "Writing to the provider's cache",  # costs up to twice what reading the prompt does (Anthropic)
    "data_sources": "Searching in data",  # Azure puts what it finds into the prompt
    "enable_search": "Searching the web",  # Qwen
    "search_parameters": "Searching the web",  # xAI
    "web_search_options": "Searching the web",
}


class UnboundedCall(InvalidInput):
    """Nobody can say before the call what it will use at most, so no limit could hold."""

    default_code = "unsupported_content"


@dataclass(frozen=True, slots=True)
class ModelBounds:
    """What the model itself bounds, tokens. `image_tokens` is the most one picture counts for; None: no pictures.

    `tokenizer` is the name of its vocabulary, where the text of a prompt can be counted here. A caller's plan makes
    `max_output_tokens` and `max_choices` smaller: whoever asks for more gets that.
    """

    context_window: int
    max_output_tokens: int
    image_tokens: int | None = None
    tokenizer: str | None = None
    max_choices: int = MOST_CHOICES


@dataclass(frozen=True, slots=True)
class Estimate:
    """Upper bounds, tokens. `max_output_tokens` is for each of `choices`, and what the provider must be told.

    `prompt_tokens` is without `audio_tokens`. Of it `fixed_tokens` are no text, `media_tokens` of these pictures and
    documents; `text_bytes` bound the rest: what counting the text can make smaller (0: it cannot). `classes` are those
    of TokenCounts that the call can use beyond the ordinary ones, each with the field of the request that asks for it;
    `service` is the service tier it asks for.
    """

    prompt_tokens: int
    max_output_tokens: int
    choices: int
    predicted_tokens: int = 0
    audio_tokens: int = 0
    fixed_tokens: int = 0
    media_tokens: int = 0
    text_bytes: int = 0
    classes: tuple[tuple[str, str], ...] = ()
    service: str | None = None

    @property
    def output_tokens(self) -> int:
        """Of all choices together, with what was predicted and may be charged as written (OpenAI's `prediction`)."""
        return (self.max_output_tokens + self.predicted_tokens) * self.choices

    @property
    def unclipped_prompt_tokens(self) -> int:
        """The bound of the prompt, whether or not it fits into the model."""
        return max(self.prompt_tokens, self.fixed_tokens + self.text_bytes) + self.audio_tokens

    @property
    def tokens(self) -> int:
        """What to hold."""
        return self.prompt_tokens + self.audio_tokens + self.output_tokens

    @property
    def most(self) -> Most:
        """What to price."""
        return Most(
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            audio_tokens=self.audio_tokens,
            classes=self.classes,
            service=self.service,
        )

    def counted(self, text_tokens: int) -> Estimate:
        """The bound when the text is known to have at most so many tokens."""
        prompt_tokens = min(self.prompt_tokens, self.fixed_tokens + text_tokens)
        return replace(self, prompt_tokens=prompt_tokens, text_bytes=0)


@dataclass(slots=True)
class PromptSum:
    """What a prompt holds, while it is added up."""

    fixed_tokens: int = TOKENS_A_CALL
    text_bytes: int = 0
    audio_tokens: int = 0
    audio_place: str = ""
    media_tokens: int = 0

    def add_media(self, tokens: int) -> None:
        """A picture or document more, which counts for at most so many."""
        self.fixed_tokens += tokens
        self.media_tokens += tokens

    def bound(self, bounds: ModelBounds) -> int:
        """Its tokens: a longer prompt does not fit the model, so the provider refuses it, or cuts it to this."""
        return min(self.fixed_tokens + self.text_bytes, bounds.context_window)


def refuse_unbounded(body: Mapping[str, object], *, bounded: Collection[str] = ()) -> None:
    """No field of the body makes the call cost more than its tokens do, but for those that the format bounds itself.

    Raises: UnboundedCall.
    """
    for field, what in _UNBOUNDED_FIELDS.items():
        if field not in bounded and body.get(field) is not None:
            raise UnboundedCall(f"{what} is not supported here: leave out `{field}`.", details={"param": field})
    if "modalities" not in bounded and body.get("modalities") not in (None, ["text"]):
        raise UnboundedCall(
            'Only text is written here: leave out `modalities`, or send `["text"]`.', details={"param": "modalities"}
        )


def service_tier(body: Mapping[str, object]) -> str | None:
    """The service tier that the call asks for; whether it has a price, the deployment knows. Raises: InvalidInput."""
    tier = body.get("service_tier")
    if tier is None or isinstance(tier, str):
        return tier
    raise UnboundedCall("`service_tier` must be a text.", details={"param": "service_tier"})


def cache_writes(controls: Iterable[tuple[str, object]]) -> tuple[tuple[str, str], ...]:
    """The classes of tokens that these `cache_control`s, each with its place, may write. Raises: UnboundedCall."""
    found: dict[str, str] = {}
    for place, control in controls:
        ttl = control.get("ttl") if isinstance(control, dict) else "?"
        if ttl not in (None, "5m", "1h"):
            raise UnboundedCall(
                '`cache_control` must be an object, and its `ttl` "5m" or "1h".', details={"param": place}
            )
        found.setdefault("cache_write_1h" if ttl == "1h" else "cache_write_5m", place)
    return tuple(found.items())


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
