"""Embeddings in OpenAI's format: the input is all that is paid for, and the answer's numbers are not looked at.

Source: OpenAI API reference, "Create embeddings" (2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from core.json_input import decode_object
from llm_gateway.limits.estimate import (
    TOKENS_A_MESSAGE,
    Estimate,
    ModelBounds,
    json_bytes,
    refuse_unbounded,
    service_tier,
)
from llm_gateway.wire.format import AnswerUnusable, Endpoint, FieldRefused, FormatRequest, StreamReader, WholeAnswer
from llm_gateway.wire.openai_dialect import OPENAI, OpenAIDialect
from llm_gateway.wire.openai_fields import flag, model_name, refuse_forbidden, type_code
from llm_gateway.wire.openai_usage import read_usage

if TYPE_CHECKING:
    from llm_gateway.catalog import Deployment

# OpenAI's own bound: more inputs in one request are refused by the provider anyway.
MOST_INPUTS: Final = 2048
_MOST_TOKEN_NUMBER: Final = 2**31

# Beyond this an answer is millions of numbers, and only its ends are read.
_PARSED_BYTES: Final = 256 * 1024
_END_BYTES: Final = 2048
_USAGE: Final = re.compile(rb'"usage"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})')


class EmbeddingsFormat:
    """`POST /v1/embeddings`; see Format."""

    endpoint: Endpoint = "embeddings"
    dialect: OpenAIDialect = OPENAI

    def parse(self, raw: bytes, headers: Mapping[bytes, bytes], *, max_json_depth: int) -> FormatRequest:
        return parse_embeddings(raw, max_json_depth=max_json_depth)

    def estimate(self, request: FormatRequest, bounds: ModelBounds) -> Estimate:
        body = request.body
        refuse_unbounded(body)
        rest = json_bytes({field: value for field, value in body.items() if field != "input"})
        inputs = _inputs(body)
        return Estimate(
            # a longer input does not fit the model: the provider refuses it, or cuts it to this
            prompt_tokens=rest + sum(min(_bound(one) + TOKENS_A_MESSAGE, bounds.context_window) for one in inputs),
            max_output_tokens=0,
            choices=1,
            fixed_tokens=sum(TOKENS_A_MESSAGE + (0 if isinstance(one, str) else len(one)) for one in inputs),
            text_bytes=rest + sum(_bound(one) for one in inputs if isinstance(one, str)),
            service=service_tier(body),
        )

    def check_translatable(self, request: FormatRequest) -> None:
        """Nothing in an input is an address to fetch."""

    def upstream_body(
        self,
        request: FormatRequest,
        deployment: Deployment,
        estimate: Estimate,
    ) -> dict[str, Any]:  # Any: the client's fields pass through as they are
        return {**request.body, "model": deployment.model}

    def stream_reader(self, request: FormatRequest, *, held_tokens: int) -> StreamReader:
        raise AssertionError("embeddings are not streamed")

    def read_whole(self, raw: bytes) -> WholeAnswer:
        return read_embeddings(raw)


EMBEDDINGS: Final = EmbeddingsFormat()


def parse_embeddings(raw: bytes, *, max_json_depth: int) -> FormatRequest:
    """The request that the bytes hold.

    Raises: InvalidInput, with the field's name in `details["param"]` where one is to blame.
    """
    body = decode_object(raw, max_json_depth)
    refuse_forbidden(body, other_maxima=frozenset({"options"}), use="`dimensions`")
    if body.get("messages") is not None:  # vLLM would embed a conversation instead, with pictures
        raise FieldRefused("messages", "`messages` is not a field of this format: use `input`.")
    if flag(body, "stream"):
        raise FieldRefused("stream", "Embeddings are not streamed: leave out `stream`.")
    _check_input(body.get("input"))
    return FormatRequest(body=body, model=model_name(body), stream=False)


def read_embeddings(raw: bytes) -> WholeAnswer:
    """What a whole answer used. Raises: AnswerUnusable when it is no list of embeddings."""
    if len(raw) > _PARSED_BYTES and raw[:1] == b"{" and raw.rstrip()[-1:] == b"}":
        found = _USAGE.search(raw, len(raw) - _END_BYTES) or _USAGE.search(raw, 0, _END_BYTES)
        if found and b'"embedding"' in raw[:_END_BYTES]:
            return WholeAnswer(read_usage(_prompt_only(_loads(found[1]))), 0)
    answer = _loads(raw)
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list) or not answer["data"]:
        raise AnswerUnusable
    return WholeAnswer(read_usage(_prompt_only(answer.get("usage"))), 0)


def _loads(raw: bytes) -> object:
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise AnswerUnusable from error
    return value


def _prompt_only(usage: object) -> object:
    """Some servers give a total alone; what they say of output (Ollama, zeros; vLLM, null) is none."""
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens")
    return {"prompt_tokens": usage.get("total_tokens") if prompt is None else prompt, "completion_tokens": 0}


def _inputs(body: Mapping[str, Any]) -> list[Any]:  # Any: JSON
    """Each input: a text, or the numbers of its tokens."""
    given = body["input"]
    return given if isinstance(given, list) and not isinstance(given[0], int) else [given]


def _bound(one: str | list[int]) -> int:
    """The most tokens that this input can be: bytes of a text, the tokens themselves otherwise."""
    return len(one.encode()) if isinstance(one, str) else len(one)


def _check_input(given: object) -> None:
    if isinstance(given, list) and given:
        if _are_tokens(given):
            return
        if len(given) > MOST_INPUTS:
            raise FieldRefused(
                "input", f"`input` may have at most {MOST_INPUTS} entries.", code="array_above_max_length"
            )
        for position, one in enumerate(given):
            if not (isinstance(one, str) and one) and not _are_tokens(one):
                raise FieldRefused(
                    f"input[{position}]",
                    "Each of `input` must be a text, or a list of token numbers; neither may be empty.",
                    code="invalid_type",
                )
    elif not isinstance(given, str) or not given:
        raise FieldRefused(
            "input",
            "`input` must be a text, a list of texts, a list of token numbers, or a list of such lists.",
            code=type_code(given),
        )


def _are_tokens(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(one) is int and 0 <= one < _MOST_TOKEN_NUMBER for one in value)
    )
