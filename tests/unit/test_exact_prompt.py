"""Counting a prompt: not less than its tokens, without the network, and only where it can help."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from llm_gateway import recount
from llm_gateway.catalog import Catalog
from llm_gateway.limits import exact_prompt
from llm_gateway.limits.estimate import Estimate
from llm_gateway.limits.estimate_chat import estimate_chat
from llm_gateway.limits.exact_prompt import VocabularyMissing, check_vocabulary, exact_prompt_tokens, is_read
from llm_gateway.limits.ledger import CallTooLarge, LimitExceeded, LimitName, LimitState
from llm_gateway.plan import Hop, Plan
from llm_gateway.recount import counted_plan
from tests.support.catalogs import catalog_of
from tests.support.untraced import cpu_s

ENGLISH = "The quick brown fox jumps over the lazy dog, and nobody minds. "  # 14 tokens


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(
        tmp_path_factory.mktemp("catalog"),
        "".join(
            f"""
[[models]]
name = "{name}"
context_window = 1_000_000
max_output_tokens = 100
{tokenizer}
[[models.deployments]]
base_url = "http://x/v1"
model = "m"
price_usd_per_million_tokens = {{ input = {price}, output = 1 }}
"""
            for name, tokenizer, price in (
                ("o200k", 'tokenizer = "o200k_base"', 1),
                ("cl100k", 'tokenizer = "cl100k_base"', 1),
                ("unknown", "", 1),
                ("unknown-and-free", "", 0),
            )
        ),
    )


def hop(catalog: Catalog, name: str, estimate: Estimate) -> Hop:
    model = catalog.find(name)
    return Hop(model, model.deployments[0], estimate)


def prompt(text: str) -> dict[str, object]:
    return {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": text}]}


def refused(
    limit_name: LimitName, remaining: int, kind: type[CallTooLarge | LimitExceeded] = LimitExceeded
) -> CallTooLarge | LimitExceeded:
    state = LimitState(limit=remaining if kind is CallTooLarge else 10**12, remaining=remaining, reset_s=1)
    if kind is CallTooLarge:
        return CallTooLarge("no", scope="user", limit_name=limit_name, state=state)
    return LimitExceeded("no", scope="user", limit_name=limit_name, retry_after_s=1, state=state)


def recounted(plan: Plan, body: object, refusal: CallTooLarge | LimitExceeded) -> Plan | None:
    return asyncio.run(counted_plan(plan, body, refusal))


HIDDEN = "word " * 1000
PICTURES: list[dict[str, object]] = [
    {"type": "image", "source": {"type": "base64", "data": "A" * 10_000}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}},
    {"type": "input_audio", "input_audio": {"format": "wav", "data": "A" * 10_000}},
    {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 10_000},
]


def said(part: dict[str, object]) -> list[object]:
    return [{"role": "user", "content": [{"type": "text", "text": "hello"}, part]}]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture["type"])
def test_names_numbers_and_texts_count_and_pictures_and_sounds_do_not(picture: dict[str, object]) -> None:
    assert exact_prompt_tokens({"a": ["hello", 12345, None, True]}, "o200k_base") > 5
    for body in (
        {"messages": said(picture)},
        {"input": said(picture)},
        {"input": [{"type": "function_call_output", "output": [picture]}]},
        {"messages": said({"type": "tool_result", "content": [picture]})},
    ):
        assert exact_prompt_tokens(body, "o200k_base") < 150


def like_it(picture: dict[str, object]) -> dict[str, object]:
    """Has the names of a picture, and texts in them."""
    return dict.fromkeys(picture, HIDDEN) | {"type": picture["type"]}


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture["type"])
def test_no_text_hides_in_what_is_called_a_picture(picture: dict[str, object]) -> None:
    for body in (
        {"messages": said({**picture, "text": HIDDEN})},
        {"tools": [{"type": "function", "parameters": {**picture, "description": HIDDEN}}]},
        {"tools": [{"type": "function", "parameters": dict.fromkeys(picture, HIDDEN) | {"type": picture["type"]}}]},
        {"tools": [{"input_schema": {"content": [dict.fromkeys(picture, HIDDEN) | {"type": picture["type"]}]}}]},
        {"messages": said({"type": "tool_use", "input": {"content": [like_it(picture)]}})},
        {"messages": said({"type": "tool_use", "input": {"messages": [{"output": like_it(picture)}]}})},
        {"messages": said({"type": "text", "content": [like_it(picture)]})},
        {"messages": [{"role": "user", **dict.fromkeys(picture, HIDDEN), "type": picture["type"]}]},
        {"response_format": {"content": {**picture, "x": HIDDEN}}},
        {**dict.fromkeys(picture, HIDDEN), "type": picture["type"]},
    ):
        assert exact_prompt_tokens(body, "o200k_base") > 1000


def test_a_million_spaces_are_counted_although_tiktoken_alone_would_panic() -> None:
    spaces = " " * 1_000_000
    assert 1000 < exact_prompt_tokens(spaces, "o200k_base") < 20_000
    assert cpu_s(lambda: exact_prompt_tokens(spaces, "o200k_base"), times=1) < 10  # 0.14 s on an idle machine


def test_a_vocabulary_that_is_not_there_is_said_and_not_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(VocabularyMissing, match="p50k_base is not installed"):
        check_vocabulary("p50k_base")
    monkeypatch.setattr(exact_prompt, "find_spec", lambda _: None)
    with pytest.raises(VocabularyMissing, match="o200k_base is not installed"):
        check_vocabulary("o200k_base")
    models = """
[[models]]
name = "a"
context_window = 10
max_output_tokens = 5
tokenizer = "o200k_base"
[[models.deployments]]
base_url = "http://x/v1"
model = "m"
price_usd_per_million_tokens = { input = 1, output = 1 }
"""
    with pytest.raises(ValueError, match="a: the vocabulary o200k_base is not installed"):
        catalog_of(tmp_path, models)


@pytest.mark.parametrize("repeats", [100, 3000])  # at once, and in a thread of its own
def test_the_plan_is_counted_and_smaller(catalog: Catalog, repeats: int) -> None:
    body = prompt(ENGLISH * repeats)
    bound = Plan((hop(catalog, "o200k", estimate_chat(body, catalog.find("o200k").bounds)),))
    plan = recounted(bound, body, refused("tokens_per_minute", 20 * repeats))
    assert plan is not None
    assert 14 * repeats < plan.tokens < 15 * repeats + 300 < bound.tokens
    assert plan.cost_nano_usd < bound.cost_nano_usd
    assert is_read("o200k_base")


def test_each_model_is_counted_in_its_own_vocabulary(catalog: Catalog) -> None:
    body = prompt("नमस्ते दुनिया " * 500)  # cl100k needs several times the tokens
    estimate = estimate_chat(body, catalog.find("o200k").bounds)
    plan = recounted(
        Plan((hop(catalog, "o200k", estimate), hop(catalog, "cl100k", estimate))),
        body,
        refused("tokens_per_day", 20_000),
    )
    assert plan is not None
    new, old = (one.estimate.prompt_tokens for one in plan.hops)
    assert new * 2 < old < estimate.prompt_tokens


def test_a_fallback_that_cannot_be_counted_stays_as_it_was_and_is_held_for_before_it_is_asked(catalog: Catalog) -> None:
    body = prompt(ENGLISH * 100)
    large = estimate_chat(body, catalog.find("o200k").bounds)
    small = replace(large, prompt_tokens=10, text_bytes=0)
    names = ("o200k", "unknown", "unknown-and-free", "unknown")
    plan = recounted(
        Plan(tuple(hop(catalog, name, one) for name, one in zip(names, (large, large, large, small), strict=True))),
        body,
        refused("nano_usd_per_month", 10**9),
    )
    assert plan is not None
    assert [(one.model.name, one.estimate.prompt_tokens < 2000) for one in plan.hops] == [
        ("o200k", True),
        ("unknown", False),
        ("unknown-and-free", False),
        ("unknown", True),
    ]


def test_nothing_is_counted_for_a_fallback_while_the_first_cannot_be(catalog: Catalog) -> None:
    body = prompt(ENGLISH * 100)
    large = estimate_chat(body, catalog.find("o200k").bounds)
    plan = Plan((hop(catalog, "unknown", large), hop(catalog, "o200k", large)))
    assert recounted(plan, body, refused("tokens_per_minute", 10**9)) is None
    assert recounted(Plan(()), body, refused("tokens_per_minute", 10**9)) is None


@pytest.mark.parametrize(
    ("limit_name", "remaining", "kind"),
    [
        ("requests_per_minute", 10**9, LimitExceeded),
        ("calls_in_flight", 10**9, LimitExceeded),
        ("tokens_per_minute", 500, LimitExceeded),  # not even a tenth of the bytes would fit
        ("tokens_per_minute", 500, CallTooLarge),
        ("nano_usd_per_day", 500_000, LimitExceeded),
    ],
)
def test_what_cannot_help_is_not_tried(
    catalog: Catalog,
    limit_name: LimitName,
    remaining: int,
    kind: type[CallTooLarge | LimitExceeded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(body: object, tokenizer: str) -> Literal[0]:
        raise AssertionError

    monkeypatch.setattr(recount, "exact_prompt_tokens", never)
    body = prompt(ENGLISH * 100)
    plan = Plan((hop(catalog, "o200k", estimate_chat(body, catalog.find("o200k").bounds)),))
    assert recounted(plan, body, refused(limit_name, remaining, kind)) is None


def test_nothing_is_counted_without_a_vocabulary_or_a_text(catalog: Catalog) -> None:
    body = prompt(ENGLISH)
    estimate = estimate_chat(body, catalog.find("o200k").bounds)
    roomy = refused("tokens_per_minute", 10**9)
    assert recounted(Plan((hop(catalog, "unknown", estimate),)), body, roomy) is None
    assert recounted(Plan((hop(catalog, "o200k", replace(estimate, text_bytes=0)),)), body, roomy) is None


def test_a_text_of_many_megabytes_is_not_counted(catalog: Catalog) -> None:
    body = prompt("x" * (5 * 1024 * 1024))
    plan = Plan((hop(catalog, "o200k", estimate_chat(body, catalog.find("o200k").bounds)),))
    assert recounted(plan, body, refused("tokens_per_minute", 10**9)) is None
