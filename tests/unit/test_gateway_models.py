"""Models as each vendor's clients list them: pages, shapes, and nothing that the caller may not use."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from core.errors import InvalidInput
from llm_gateway.caller import Policy
from llm_gateway.catalog import Catalog, PublicModel
from llm_gateway.limits.estimate import ModelBounds
from llm_gateway.model_list import usable_models
from llm_gateway.wire.format import Endpoint
from llm_gateway.wire.models import ANTHROPIC_MODELS, OPENAI_MODELS, ModelShape


def model(name: str, *endpoints: Endpoint) -> PublicModel:
    return PublicModel(
        name=name,
        description="d",
        note=None,
        owned_by="us",
        created=1_763_683_200,
        bounds=ModelBounds(context_window=1000, max_output_tokens=100),
        deployments=(),
        fallbacks=(),
        endpoints=frozenset(endpoints or ("chat",)),
    )


MODELS = [model(name) for name in "abcde"]


def page(query: str) -> tuple[str, bool, str | None, str | None]:
    body: dict[str, Any] = orjson.loads(ANTHROPIC_MODELS.page(MODELS, query.encode()))
    return "".join(one["id"] for one in body["data"]), body["has_more"], body["first_id"], body["last_id"]


def test_openais_list_is_whole() -> None:
    body = orjson.loads(OPENAI_MODELS.page(MODELS, b"limit=1"))
    assert [one["id"] for one in body["data"]] == list("abcde")
    assert body["object"] == "list"
    assert body["data"][0]["created"] == 1_763_683_200


def test_anthropics_model_has_a_date_and_bounds() -> None:
    one = ANTHROPIC_MODELS.one(MODELS[0])
    assert (one["created_at"], one["max_input_tokens"], one["max_tokens"]) == ("2025-11-21T00:00:00Z", 1000, 100)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ("abcde", False, "a", "e")),
        ("limit=2", ("ab", True, "a", "b")),
        ("limit=2&after_id=b", ("cd", True, "c", "d")),
        ("limit=2&after_id=d", ("e", False, "e", "e")),
        ("limit=2&after_id=e", ("", False, None, None)),
        ("limit=2&before_id=e", ("cd", True, "c", "d")),
        ("limit=2&before_id=c", ("ab", False, "a", "b")),
        ("limit=2&before_id=a", ("", False, None, None)),
        ("limit=1000", ("abcde", False, "a", "e")),
    ],
)
def test_anthropics_pages(query: str, expected: tuple[str, bool, str | None, str | None]) -> None:
    assert page(query) == expected


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=1001", "limit=" + "9" * 5000, "limit=²", "after_id=z"]
)
def test_a_page_that_cannot_be_is_refused(query: str) -> None:
    with pytest.raises(InvalidInput):
        page(query)


CATALOG = Catalog([model("both", "chat", "messages"), model("ours", "chat"), model("vectors", "embeddings")])


@pytest.mark.parametrize(
    ("shape", "policy", "expected"),
    [
        (OPENAI_MODELS, Policy(), ["both", "ours", "vectors"]),
        (ANTHROPIC_MODELS, Policy(), ["both"]),
        (OPENAI_MODELS, Policy(models=frozenset({"ours", "no/such"})), ["ours"]),
        (ANTHROPIC_MODELS, Policy(models=frozenset({"ours"})), []),
        (OPENAI_MODELS, Policy(endpoints=frozenset({"embeddings", "models"})), ["vectors"]),
        (ANTHROPIC_MODELS, Policy(endpoints=frozenset({"chat", "models"})), []),
        (OPENAI_MODELS, Policy(models=frozenset()), []),
    ],
)
def test_only_what_the_caller_may_ask_for_is_listed(shape: ModelShape, policy: Policy, expected: list[str]) -> None:
    assert [one.name for one in usable_models(CATALOG, policy, shape)] == expected
