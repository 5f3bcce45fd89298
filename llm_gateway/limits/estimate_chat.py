"""The most that a chat completion in OpenAI's format can use.

Source: OpenAI API reference, "Create chat completion" (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from core.errors import InvalidInput
from llm_gateway.limits.estimate import (
    MOST_CHOICES,
    TOKENS_A_CALL,
    TOKENS_A_MESSAGE,
    TOKENS_FOR_TOOLS,
    Estimate,
    ModelBounds,
    PromptSum,
    UnboundedCall,
    cache_writes,
    json_bytes,
    positive,
    refuse_unbounded,
    service_tier,
)

_TEXT_PARTS: Final = frozenset({"text", "refusal"})
# OpenAI hears ten tokens a second, Gemini 32. The sparsest sound that is taken (MP3 of 8 kbit/s) has 1,333 bytes of
# base64 for each second. Source: OpenAI "Audio and speech", Gemini "Audio understanding" (2026-11).
_AUDIO_BASE64_BYTES_A_TOKEN: Final = 40
_AUDIO_FORMATS: Final = ("mp3", "wav")
_PICTURE_FIELDS: Final = frozenset({"type", "image_url", "cache_control"})
_BOUNDED_HERE: Final = frozenset({"audio", "cache_control", "modalities"})


def estimate_chat(body: Mapping[str, object], bounds: ModelBounds) -> Estimate:
    """The most that this request can use.

    Raises: InvalidInput naming the field that is wrong; UnboundedCall for what has no bound.
    """
    refuse_unbounded(body, bounded=_BOUNDED_HERE)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("`messages` must be a list with at least one message.", details={"param": "messages"})
    total = PromptSum(TOKENS_A_CALL + (TOKENS_FOR_TOOLS if body.get("tools") or body.get("functions") else 0))
    for position, message in enumerate(messages):
        _add_message(total, message, position, bounds)
    total.text_bytes += json_bytes({name: value for name, value in body.items() if name != "messages"})
    return Estimate(
        prompt_tokens=total.bound(bounds),
        max_output_tokens=_max_output_tokens(body, bounds),
        choices=_choices(body, bounds),
        predicted_tokens=0 if body.get("prediction") is None else json_bytes(body["prediction"]),
        audio_tokens=min(total.audio_tokens, bounds.context_window),
        fixed_tokens=total.fixed_tokens,
        media_tokens=total.media_tokens,
        text_bytes=total.text_bytes,
        classes=(*cache_writes(_cache_controls(body)), *_audio_classes(body, total)),
        service=service_tier(body),
    )


def _cache_controls(body: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Where vendors look for `cache_control`: the body, messages, their parts and calls, tools; not their schemas."""
    if body.get("cache_control") is not None:
        yield "cache_control", body["cache_control"]
    for name in ("messages", "tools"):
        entries = body.get(name)
        for position, entry in enumerate(entries if isinstance(entries, list) else ()):
            for place in _places(entry):
                if place.get("cache_control") is not None:
                    yield f"{name}[{position}]", place["cache_control"]


def _places(entry: object) -> Iterator[Mapping[str, object]]:
    """A message or a tool, and what is directly within it."""
    if not isinstance(entry, dict):
        return
    yield entry
    for field in ("content", "function", "tool_calls"):
        inner = entry.get(field)
        for one in inner if isinstance(inner, list) else [inner]:
            if field == "tool_calls":
                yield from _places(one)
            elif isinstance(one, dict):
                yield one


def _audio_classes(body: Mapping[str, object], total: PromptSum) -> Iterator[tuple[str, str]]:
    """What was heard before a stream broke off, nobody could count: sound is written whole or not at all."""
    if total.audio_tokens:
        yield "input_audio", total.audio_place
    modalities = body.get("modalities")
    if modalities in (None, ["text"]):
        if body.get("audio") is not None:
            raise UnboundedCall(
                'Without `"modalities": ["text", "audio"]`, leave out `audio`.', details={"param": "audio"}
            )
    elif modalities in (["text", "audio"], ["audio", "text"]) and not body.get("stream"):
        yield "output_audio", "modalities"
    else:
        raise UnboundedCall(
            "Only text is written here, and audio in answers that are not streamed: leave out `modalities`.",
            details={"param": "modalities"},
        )


def _add_message(total: PromptSum, message: object, position: int, bounds: ModelBounds) -> None:
    if not isinstance(message, dict):
        raise InvalidInput(f"`messages[{position}]` must be an object.", details={"param": f"messages[{position}]"})
    if message.get("audio") is not None:
        raise UnboundedCall(
            "What the model said before is taken as text only.", details={"param": f"messages[{position}].audio"}
        )
    total.fixed_tokens += TOKENS_A_MESSAGE
    content = message.get("content")
    if not isinstance(content, list):
        total.text_bytes += json_bytes(message)
        return
    total.text_bytes += json_bytes({name: value for name, value in message.items() if name != "content"})
    for number, part in enumerate(content):
        _add_part(total, part, f"messages[{position}].content[{number}]", bounds)


def _add_part(total: PromptSum, part: object, where: str, bounds: ModelBounds) -> None:
    fields: dict[str, object] = part if isinstance(part, dict) else {}
    kind = fields.get("type")
    rest = {name: value for name, value in fields.items() if name != kind}
    if isinstance(kind, str) and kind in _TEXT_PARTS:
        total.text_bytes += json_bytes(fields)
    elif kind == "image_url" and bounds.image_tokens is not None:
        _check_picture(fields, where)
        total.add_media(bounds.image_tokens)
        total.text_bytes += json_bytes(rest)
    elif kind == "input_audio":
        total.audio_tokens += _audio_tokens(fields.get("input_audio"), where)
        total.audio_place = total.audio_place or where
        total.text_bytes += json_bytes(rest)
    else:
        shown = kind if isinstance(kind, str) else "?"
        raise UnboundedCall(f"This model takes no content of type `{shown[:64]}` here.", details={"param": where})


def _check_picture(part: Mapping[str, object], where: str) -> None:
    """Other fields change what a picture counts for (`max_pixels`, `vl_high_resolution_images`, `min_pixels`)."""
    inner = part.get("image_url")
    unknown = sorted(part.keys() - _PICTURE_FIELDS)
    if isinstance(inner, dict):
        unknown += sorted(f"image_url.{name}" for name in inner.keys() - {"url", "detail", "format"})
    if unknown:
        raise UnboundedCall(
            "A picture has a `url` and a `detail`; nobody here can say what it counts for with other fields.",
            details={"param": f"{where}.{unknown[0][:64]}"},
        )


def _audio_tokens(audio: object, where: str) -> int:
    data = audio.get("data") if isinstance(audio, dict) else None
    if not isinstance(audio, dict) or not isinstance(data, str) or audio.get("format") not in _AUDIO_FORMATS:
        raise UnboundedCall(
            "Audio is taken as base64 in `data`, with the `format` mp3 or wav.", details={"param": where}
        )
    return 1 + len(data) // _AUDIO_BASE64_BYTES_A_TOKEN


def _max_output_tokens(body: Mapping[str, object], bounds: ModelBounds) -> int:
    """What the caller asks for, at most what the model can; all the model can for a caller who does not say."""
    asked = [positive(body, name) for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    return min(max(asked, default=bounds.max_output_tokens), bounds.max_output_tokens)


def _choices(body: Mapping[str, object], bounds: ModelBounds) -> int:
    choices = 1
    for name in ("n", "best_of"):
        if body.get(name) is not None:
            choices = max(choices, positive(body, name))
            if choices > MOST_CHOICES:
                raise InvalidInput(f"`{name}` must be at most {MOST_CHOICES}.", details={"param": name})
    return min(choices, bounds.max_choices)
