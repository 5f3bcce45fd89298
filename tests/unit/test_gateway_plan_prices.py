"""Who may be asked: each deployment at its own price, and only where that has all that the call can use."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import InvalidInput
from llm_gateway.accounting import ServiceUnpriced
from llm_gateway.caller import Policy
from llm_gateway.catalog import Catalog
from llm_gateway.limits.estimate import Estimate
from llm_gateway.plan import Plan, plan_call
from llm_gateway.wire.format import FormatRequest
from llm_gateway.wire.openai_chat import CHAT
from tests.support.catalogs import catalog_of

MODELS = """
[[models]]
name = "translated"
context_window = 1000
max_output_tokens = 10
[[models.deployments]]
provider = "gemini"
base_url = "http://x/v1"
model = "m"
price_usd_per_million_tokens = { input = 1, output = 2 }

[[models]]
name = "plain"
context_window = 1000
max_output_tokens = 100
[[models.deployments]]
base_url = "http://x/v1"
model = "m"
price_usd_per_million_tokens = { input = 1, output = 2 }

[[models]]
name = "rich"
context_window = 1000
max_output_tokens = 10
image_tokens = 100
[[models.deployments]]
base_url = "http://x/v1"
model = "m"
price_usd_per_million_tokens = { input = 2, cache_write_5m = 3, cache_write_1h = 4, input_audio = 9, output = 4 }
price_tiers_usd_per_million_tokens = [{ service_tier = "priority", input = 20, output = 40 }]
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(tmp_path_factory.mktemp("catalog"), MODELS, {"GEMINI_API_KEY": "k"})


def plan(catalog: Catalog, *names: str, **fields: object) -> Plan:
    body: dict[str, Any] = {"model": names[0], "messages": [{"role": "user", "content": "hi"}], **fields}  # Any: JSON
    request = FormatRequest(body=body, model=names[0], stream=False)
    models = [catalog.find(name) for name in names]
    return plan_call(CHAT, request, [(model, model.deployments[0]) for model in models], Policy())


def test_each_is_held_at_its_own_price(catalog: Catalog) -> None:
    first, second = plan(catalog, "plain", "rich").hops
    prompt = first.estimate.prompt_tokens
    assert first.most_nano_usd == prompt * 1000 + 100 * 2000
    assert second.most_nano_usd == prompt * 2000 + 10 * 4000


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "priority"},
        {"cache_control": {"type": "ephemeral"}},
        {
            "messages": [
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
    ],
)
def test_only_those_are_asked_that_have_a_price_for_all_of_the_call(
    catalog: Catalog, fields: dict[str, object]
) -> None:
    assert [hop.model.name for hop in plan(catalog, "plain", "rich", **fields).hops] == ["rich"]
    with pytest.raises(InvalidInput) as refusal:
        plan(catalog, "plain", **fields)
    assert refusal.value.code == "unsupported_content"


def test_the_refusal_is_that_of_the_model_that_was_asked(catalog: Catalog) -> None:
    with pytest.raises(ServiceUnpriced) as refusal:
        plan(catalog, "plain", "rich", service_tier="flex")
    assert refusal.value.details == {"param": "service_tier"}


def test_priority_is_held_at_its_own_price(catalog: Catalog) -> None:
    (ordinary,), (dear,) = plan(catalog, "rich").hops, plan(catalog, "rich", service_tier="priority").hops
    assert dear.most_nano_usd > 9 * ordinary.most_nano_usd


def test_a_translated_call_asks_for_no_service_and_pays_for_none(catalog: Catalog) -> None:
    (hop,) = plan(catalog, "translated", service_tier="priority").hops
    assert (hop.estimate.service, hop.most_nano_usd) == (None, hop.estimate.prompt_tokens * 1000 + 10 * 2000)


def test_without_anybody_to_ask_nothing_is_held_or_asked(catalog: Catalog) -> None:
    assert (Plan(()).tokens, Plan(()).cost_nano_usd) == (0, 0)
    with pytest.raises(InvalidInput, match="No deployment"):
        plan_call(CHAT, FormatRequest(body={}, model="plain", stream=False), [], Policy())


def test_a_prompt_that_does_not_fit_the_model_is_told_whole() -> None:
    assert Estimate(1000, 1, 1, fixed_tokens=80, text_bytes=5000, audio_tokens=7).unclipped_prompt_tokens == 5087
