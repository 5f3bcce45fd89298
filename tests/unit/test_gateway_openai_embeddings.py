"""Embeddings: the input bounds the call, the numbers pass unread."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from core.errors import InvalidInput
from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.estimate import Estimate, ModelBounds
from llm_gateway.wire.format import AnswerUnusable, FieldRefused, FormatRequest
from llm_gateway.wire.openai_embeddings import EMBEDDINGS, MOST_INPUTS, read_embeddings
from tests.support.untraced import cpu_s

BOUNDS = ModelBounds(context_window=8191, max_output_tokens=1)
USAGE = {"prompt_tokens": 8, "total_tokens": 8}


def parse(**fields: object) -> FormatRequest:
    return EMBEDDINGS.parse(orjson.dumps({"model": "m", "input": "hi", **fields}), {}, max_json_depth=64)


def estimate(given: object) -> Estimate:
    return EMBEDDINGS.estimate(parse(input=given), BOUNDS)


@pytest.mark.parametrize(
    ("given", "least"),
    [("hello", 5), (["hello", "wörld"], 11), ([1, 2, 3], 3), ([[1, 2, 3], [4]], 4), (["hello", [1, 2]], 7)],
)
def test_the_input_is_the_bound_and_there_is_no_output(given: object, least: int) -> None:
    bound = estimate(given)
    assert least <= bound.prompt_tokens <= least + 100
    assert (bound.max_output_tokens, bound.output_tokens) == (0, 0)


def test_each_input_counts_at_most_for_what_the_model_can_read() -> None:
    assert estimate(["x" * 100_000] * 3).prompt_tokens <= 3 * 8191 + 100


def test_other_fields_may_reach_the_model_too() -> None:
    request = parse(instruction="y" * 1000)
    assert EMBEDDINGS.estimate(request, BOUNDS).prompt_tokens > 1000


@pytest.mark.parametrize(
    "given",
    [
        None, "", [], {}, 7, True, [""], [[]], [None], [True], [1, "a"], ["a", 1], [[1, "a"]], [[True]], [-1], [2**40],
        [1.5], [[[1]]], [{"type": "image_url"}], ["a"] * (MOST_INPUTS + 1), [[1]] * (MOST_INPUTS + 1),
    ],
    ids=lambda given: repr(given)[:20],
)  # fmt: skip
def test_what_is_no_input_is_refused_by_name(given: object) -> None:
    with pytest.raises(FieldRefused) as refused:
        parse(input=given)
    assert str((refused.value.details or {})["param"]).startswith("input")


@pytest.mark.parametrize(
    "fields", [{"Model": "m"}, {"Input": "x"}, {"api_base": "http://x"}, {"stream": True}, {"messages": []}]
)
def test_what_is_no_field_of_the_format_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(FieldRefused):
        parse(**fields)


def test_everything_else_passes() -> None:
    fields: dict[str, Any] = {"encoding_format": "base64", "dimensions": 256, "user": "u", "input_type": "query"}
    assert parse(**fields).body == {"model": "m", "input": "hi", **fields}


def test_to_bound_half_a_million_tokens_costs_little_more_than_to_read_them() -> None:
    raw = orjson.dumps({"model": "m", "input": list(range(490_000))})

    def bounded() -> Estimate:
        return EMBEDDINGS.estimate(EMBEDDINGS.parse(raw, {}, max_json_depth=64), BOUNDS)

    assert bounded().prompt_tokens <= 8300
    assert cpu_s(bounded) < 20 * cpu_s(lambda: json.loads(raw))  # 3 times, in the tenth of a second


def answer(count: int, size: int, *, usage: object = USAGE, first: bool = False) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": [0.0125] * size} for index in range(count)]
    tail = {"usage": usage} if usage is not None else {}
    body = {"object": "list", **(tail if first else {}), "data": data, "model": "m", **tail}
    return orjson.dumps(body)


@pytest.mark.parametrize(("count", "size"), [(1, 8), (2048, 64)])
@pytest.mark.parametrize("first", [False, True])
def test_usage_is_read_wherever_it_stands(count: int, size: int, *, first: bool) -> None:
    assert read_embeddings(answer(count, size, first=first)).counts == TokenCounts(input=8)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 8, "total_tokens": 8, "completion_tokens": 0, "prompt_tokens_details": None}, 8),
        ({"prompt_tokens": 8, "total_tokens": 8, "cost_details": {"upstream": {"x": 1}}}, 8),
        ({"total_tokens": 8}, 8),
        (None, None),
        ({"prompt_tokens": "8"}, None),
    ],
)
@pytest.mark.parametrize("size", [8, 100_000])
def test_usage_in_every_shape(usage: object, counts: int | None, size: int) -> None:
    read = read_embeddings(answer(1, size, usage=usage)).counts
    assert read == (None if counts is None else TokenCounts(input=counts))


def test_a_large_answer_is_not_parsed() -> None:
    raw = answer(2048, 256)
    assert cpu_s(lambda: read_embeddings(raw)) < cpu_s(lambda: orjson.loads(raw)) / 3


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"{}", b'{"data": []}', b'{"data": {}}', answer(2048, 64)[:-20], b"<html>" * 100_000]
)
def test_what_is_no_list_of_embeddings_is_unusable(raw: bytes) -> None:
    with pytest.raises(AnswerUnusable):
        read_embeddings(raw)


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInput):
        EMBEDDINGS.parse(b"[]", {}, max_json_depth=64)
