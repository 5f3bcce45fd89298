"""Whom to ask, in which order, how often, and who rests."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from llm_gateway.catalog import Catalog
from llm_gateway.limits.estimate import Estimate
from llm_gateway.plan import Hop
from llm_gateway.providers.contract import FailureKind, ProviderFailure
from llm_gateway.routing.attempts import LONGEST_PAUSE_S, attempts, pause_before_next_s
from llm_gateway.routing.choose import order_routes
from llm_gateway.routing.cooldown import LONGEST_REST_S, REST_S, TRIAL_S, Cooldowns
from tests.support.catalogs import catalog_of

MODELS = """
[[models]]
name = "a"
context_window = 100
max_output_tokens = 10
fallbacks = ["b"]
[[models.deployments]]
base_url = "http://heavy"
model = "m"
weight = 3
price_usd_per_million_tokens = { input = 1, output = 1 }
[[models.deployments]]
base_url = "http://light"
model = "m"
price_usd_per_million_tokens = { input = 1, output = 1 }
[[models]]
name = "b"
context_window = 100
max_output_tokens = 10
[[models.deployments]]
base_url = "http://last"
model = "m"
price_usd_per_million_tokens = { input = 1, output = 1 }
"""
TO_THE_SAME_PLACES = """
[[models]]
name = "c"
context_window = 100
max_output_tokens = 10
fallbacks = ["a", "a-again"]
[[models.deployments]]
base_url = "http://other"
model = "m"
price_usd_per_million_tokens = { input = 1, output = 1 }
[[aliases]]
name = "a-again"
alias_of = "a"
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return catalog_of(tmp_path, MODELS)


@pytest.fixture
def hops(catalog: Catalog) -> list[Hop]:
    routes = order_routes(catalog, catalog.find("a"), endpoint="chat", rests=lambda _: False)
    return [Hop(model, deployment, Estimate(1, 1, 1)) for model, deployment in routes]


def test_a_models_own_deployments_come_by_weight_before_its_fallbacks(catalog: Catalog) -> None:
    chance = Random(7).random
    orders = [
        [
            deployment.id
            for _, deployment in order_routes(
                catalog, catalog.find("a"), endpoint="chat", rests=lambda _: False, chance=chance
            )
        ]
        for _ in range(2000)
    ]
    assert all(sorted(order) == ["a#1", "a#2", "b#1"] and order[-1] == "b#1" for order in orders)
    assert Counter(order[0] for order in orders)["a#1"] == pytest.approx(1500, abs=100)


def test_no_deployment_is_asked_twice_because_an_alias_leads_to_it_as_well(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, MODELS + TO_THE_SAME_PLACES)
    routes = order_routes(catalog, catalog.find("c"), endpoint="chat", rests=lambda _: False)
    assert sorted(deployment.id for _, deployment in routes) == ["a#1", "a#2", "b#1", "c#1"]


def test_a_resting_deployment_is_asked_last(catalog: Catalog) -> None:
    routes = order_routes(
        catalog, catalog.find("a"), endpoint="chat", rests=lambda deployment: deployment.startswith("a#")
    )
    assert next(deployment.id for _, deployment in routes) == "b#1"


def test_three_failures_in_a_row_are_a_rest_and_a_success_ends_it() -> None:
    now_s = 100.0
    cooldowns = Cooldowns(clock=lambda: now_s)
    for _ in range(2):
        cooldowns.failed("a#1", ProviderFailure(FailureKind.BROKEN, 500))
    assert not cooldowns.rests("a#1")
    cooldowns.failed("a#1", ProviderFailure(FailureKind.TIMED_OUT))
    assert cooldowns.rests("a#1")
    now_s += REST_S
    assert not cooldowns.rests("a#1")
    cooldowns.failed("a#1", ProviderFailure(FailureKind.BROKEN, 500))
    assert cooldowns.rests("a#1")
    cooldowns.succeeded("a#1")
    assert not cooldowns.rests("a#1")


def test_a_rate_limited_deployment_rests_as_long_as_it_asks_but_not_for_ever() -> None:
    now_s = 0.0
    cooldowns = Cooldowns(clock=lambda: now_s)
    cooldowns.failed("a#1", ProviderFailure(FailureKind.RATE_LIMITED, 429, retry_after_s=3600))
    now_s = LONGEST_REST_S - 1
    assert cooldowns.rests("a#1")
    now_s = LONGEST_REST_S
    assert not cooldowns.rests("a#1")


def test_after_its_rest_one_call_tries_a_deployment_and_the_others_wait_for_it() -> None:
    now_s = 0.0
    cooldowns = Cooldowns(clock=lambda: now_s)
    asks_for_time = ProviderFailure(FailureKind.OVERLOADED, 503, retry_after_s=5)
    cooldowns.failed("a#1", asks_for_time)
    assert cooldowns.rests("a#1")
    now_s = 5.0
    assert not cooldowns.rests("a#1")
    cooldowns.asking("a#1")
    assert cooldowns.rests("a#1")
    cooldowns.failed("a#1", ProviderFailure(FailureKind.BROKEN, 500))
    now_s += REST_S - 1
    assert cooldowns.rests("a#1")
    now_s += 1
    cooldowns.asking("a#1")
    now_s += TRIAL_S
    assert not cooldowns.rests("a#1")  # whoever tried it never told
    cooldowns.asking("a#1")
    cooldowns.failed("a#1", ProviderFailure(FailureKind.REJECTED, 400))
    assert not cooldowns.rests("a#1")
    cooldowns.asking("a#1")
    cooldowns.succeeded("a#1")
    cooldowns.asking("a#1")
    assert not cooldowns.rests("a#1")


def test_a_callers_own_mistakes_make_nobody_rest() -> None:
    cooldowns = Cooldowns(clock=lambda: 0.0)
    for _ in range(10):
        cooldowns.failed("a#1", ProviderFailure(FailureKind.REJECTED, 400))
    assert not cooldowns.rests("a#1")


def test_attempts_are_bounded(hops: list[Hop]) -> None:
    assert attempts(hops[:1]) == [hops[0], hops[0]]
    assert attempts(hops) == hops
    assert attempts(hops * 5) == hops


@pytest.mark.parametrize("kind", [FailureKind.LOST, FailureKind.TIMED_OUT, FailureKind.UNUSABLE, FailureKind.REJECTED])
def test_nobody_else_is_asked_once_work_may_have_been_done_or_the_request_is_at_fault(
    kind: FailureKind, hops: list[Hop]
) -> None:
    assert pause_before_next_s(ProviderFailure(kind), hops) is None


def test_another_deployment_is_asked_at_once(hops: list[Hop]) -> None:
    assert pause_before_next_s(ProviderFailure(FailureKind.CREDENTIAL, 401), hops) == 0.0


def test_the_same_deployment_is_asked_again_after_a_pause_where_that_can_help(hops: list[Hop]) -> None:
    same = [hops[0], hops[0]]
    assert pause_before_next_s(ProviderFailure(FailureKind.CREDENTIAL, 401), same) is None
    assert pause_before_next_s(ProviderFailure(FailureKind.BROKEN, 500), hops[:1]) is None
    pause_s = pause_before_next_s(ProviderFailure(FailureKind.BROKEN, 500), same)
    assert pause_s is not None
    assert 0 < pause_s < 1
    patient_s = pause_before_next_s(ProviderFailure(FailureKind.RATE_LIMITED, 429, retry_after_s=1.0), same)
    assert patient_s is not None
    assert 1.0 <= patient_s <= LONGEST_PAUSE_S
    long = ProviderFailure(FailureKind.RATE_LIMITED, 429, retry_after_s=LONGEST_PAUSE_S + 1)
    assert pause_before_next_s(long, same) is None


def test_only_those_are_asked_who_answer_such_calls(tmp_path: Path) -> None:
    models = MODELS.replace(
        'base_url = "http://light"', 'provider = "anthropic"\nbase_url = "http://light/v1"\napi_key_env = "K"'
    ).replace('name = "a"', 'name = "a"\nendpoints = ["chat", "embeddings"]')
    catalog = catalog_of(tmp_path, models, {"K": "key"})
    embedding = order_routes(catalog, catalog.find("a"), endpoint="embeddings", rests=lambda _: False)
    assert [deployment.id for _, deployment in embedding] == ["a#1"]


def test_whoever_may_use_an_alias_may_use_what_it_stands_for_and_no_other_fallback(tmp_path: Path) -> None:
    last = MODELS[MODELS.rindex("[[models]]") :]
    more = last.replace('"b"', '"c"') + '[[aliases]]\nname = "fast"\nalias_of = ["c", "a"]\n'
    catalog = catalog_of(tmp_path, MODELS + more)
    fast = catalog.find("fast")
    routes = order_routes(
        catalog, fast, endpoint="chat", rests=lambda _: False, allows=lambda name: name == "fast", chance=lambda: 0.5
    )
    assert [deployment.id for _, deployment in routes] == ["c#1", "a#1", "a#2"]
