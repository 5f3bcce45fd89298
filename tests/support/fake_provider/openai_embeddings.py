"""OpenAI's `POST /v1/embeddings`: unit vectors made from a digest of the input, the same ones every time."""

import base64
import hashlib
import math
import struct
from collections.abc import Iterator

from tests.support.fake_provider.answer import Answer, Call, JsonObject
from tests.support.fake_provider.openai_errors import ACCOUNT_HEADERS, error_body, error_event
from tests.support.fake_provider.tokens import count_text
from tests.support.fake_provider.wire import Event, Format, RequestInvalid, optional_count, required_text

DEFAULT_DIMENSIONS = 16


def read_call(body: JsonObject) -> Call:
    """The call that an embedding's body asks for. Raises: RequestInvalid."""
    inputs = _inputs(body)
    user = body.get("user")
    return Call(
        model=required_text(body, "model"),
        user=user if isinstance(user, str) else None,
        stream=False,
        prompt_tokens=sum(len(one) if isinstance(one, list) else count_text(str(one)) for one in inputs),
        inputs=tuple(inputs),
        dimensions=optional_count(body, "dimensions"),
        as_base64=body.get("encoding_format") == "base64",
    )


def _inputs(body: JsonObject) -> list[object]:
    """The inputs: texts, or lists of token numbers."""
    given = body.get("input")
    if isinstance(given, str) and given:
        return [given]
    if isinstance(given, list) and given:
        return [given] if isinstance(given[0], int) else given
    raise RequestInvalid("Missing required parameter: 'input'.")


def vector(text: str, dimensions: int) -> list[float]:
    """The unit vector of this text."""
    raw = b"".join(hashlib.sha256(f"{text}:{block}".encode()).digest() for block in range(-(-dimensions // 16)))
    values = [number / 32768 for number in struct.unpack(f"<{len(raw) // 2}h", raw)[:dimensions]]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def _packed(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def reply(call: Call, answer: Answer) -> JsonObject:
    """The list of embeddings, base64 of little-endian floats when the client asks for that."""
    vectors = [vector(str(one), call.dimensions or DEFAULT_DIMENSIONS) for one in call.inputs]
    data: list[JsonObject] = [
        {"object": "embedding", "index": index, "embedding": _packed(values) if call.as_base64 else values}
        for index, values in enumerate(vectors)
    ]
    body: JsonObject = {
        "object": "list",
        "data": [] if answer.without_choices else data,
        "model": call.model,
        "usage": None
        if answer.usage == "null"
        else {"prompt_tokens": answer.input_tokens, "total_tokens": answer.input_tokens},
    }
    if answer.usage == "missing":
        del body["usage"]
    return body


def _no_events(call: Call, answer: Answer) -> Iterator[Event]:
    return iter(())


EMBEDDINGS = Format(
    id_header="x-request-id",
    headers=ACCOUNT_HEADERS,
    read_call=read_call,
    reply=reply,
    events=_no_events,
    error=error_body,
    error_event=error_event,
    reports_usage=lambda body: bool(body.get("usage")),
    has_output=False,
)
