"""What a call may use before it is made: clamped to its caller's plan, held for the deployment that is asked first."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from core.errors import InvalidInput
from llm_gateway.caller import Policy
from llm_gateway.catalog import Catalog
from llm_gateway.plan import Plan, plan_call
from llm_gateway.routing.choose import order_routes
from llm_gateway.routing.retry_budget import BURST, RetryBudget
from llm_gateway.wire.anthropic_messages import MESSAGES
from llm_gateway.wire.openai_chat import CHAT
from tests.support.catalogs import catalog_of

MODELS = """
[[models]]
name = "cheap"
context_window = 1000
max_output_tokens = 100
fallbacks = ["dear"]
[[models.deployments]]
base_url = "http://cheap"
model = "m"
price_usd_per_million_tokens = { input = 1, output = 1 }
[[models]]
name = "dear"
context_window = 1000
max_output_tokens = 500
[[models.deployments]]
base_url = "http://dear"
model = "m"
price_usd_per_million_tokens = { input = 9, output = 9 }
"""
ASK = {"model": "cheap", "messages": [{"role": "user", "content": "Hello?"}]}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return catalog_of(tmp_path, MODELS)


def planned(catalog: Catalog, policy: Policy | None = None, **fields: object) -> Plan:
    policy = policy or Policy()
    request = CHAT.parse(orjson.dumps({**ASK, **fields}), {}, max_json_depth=8)
    routes = order_routes(
        catalog, catalog.find("cheap"), endpoint="chat", rests=lambda _: False, allows=policy.allows_model
    )
    return plan_call(CHAT, request, routes, policy)


def sent(plan: Plan, **fields: object) -> dict[str, Any]:
    request = CHAT.parse(orjson.dumps({**ASK, **fields}), {}, max_json_depth=8)
    return CHAT.upstream_body(request, plan.hops[0].deployment, plan.hops[0].estimate)


def test_each_deployment_has_bounds_and_a_price_of_its_own(catalog: Catalog) -> None:
    cheap, dear = planned(catalog).hops
    assert (cheap.estimate.max_output_tokens, dear.estimate.max_output_tokens) == (100, 500)
    assert dear.most_nano_usd > 9 * cheap.most_nano_usd


@pytest.mark.parametrize(("asked", "given"), [({}, 30), ({"max_tokens": 20}, 20), ({"max_tokens": 99}, 30)])
def test_a_plans_maximum_of_output_clamps_every_deployment(
    asked: dict[str, object], given: int, catalog: Catalog
) -> None:
    plan = planned(catalog, Policy(max_output_tokens=30), **asked)
    assert [hop.estimate.max_output_tokens for hop in plan.hops] == [given, given]
    assert sent(plan, **asked)["max_tokens"] == given


@pytest.mark.parametrize(("asked", "given"), [({}, 1), ({"n": 2}, 2), ({"n": 5}, 2), ({"best_of": 5, "n": None}, 2)])
def test_a_plans_maximum_of_choices_clamps_what_is_held_and_what_is_sent(
    asked: dict[str, object], given: int, catalog: Catalog
) -> None:
    plan = planned(catalog, Policy(max_choices=2), **asked)
    assert plan.hops[0].estimate.choices == given
    body = sent(plan, **asked)
    assert {name: body[name] for name in asked if asked[name]} == dict.fromkeys(
        (name for name in asked if asked[name]), given
    )


def test_a_fallback_that_the_caller_may_not_use_is_no_fallback(catalog: Catalog) -> None:
    assert [hop.model.name for hop in planned(catalog, Policy(models=frozenset({"cheap"}))).hops] == ["cheap"]


def test_a_deployment_without_a_price_for_what_is_asked_is_left_out(catalog: Catalog) -> None:
    body = {"model": "cheap", "max_tokens": 9, "cache_control": {"type": "ephemeral"}, "messages": ASK["messages"]}
    request = MESSAGES.parse(orjson.dumps(body), {}, max_json_depth=8)
    routes = order_routes(catalog, catalog.find("cheap"), endpoint="chat", rests=lambda _: False)
    with pytest.raises(InvalidInput) as refused:
        plan_call(MESSAGES, request, routes, Policy())
    assert (refused.value.details or {})["param"] == "cache_control"


def test_a_tenth_of_the_calls_may_be_repeated_and_a_few_at_once() -> None:
    now_s = 0.0
    budget = RetryBudget(lambda: now_s)
    assert sum(budget.take() for _ in range(100)) == BURST
    repeated = 0
    for _ in range(1000):
        budget.called()
        repeated += budget.take()
    assert repeated == pytest.approx(100, abs=2)
    now_s += 5.0
    assert 5 <= sum(budget.take() for _ in range(100)) <= 6
