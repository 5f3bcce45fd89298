"""litellm's price file, read without litellm: exact numbers, tiers, services, and no price that nobody meant."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from decimal import Decimal

import pytest

from llm_gateway.accounting import Price, Rates
from llm_gateway.prices import PriceFile, PriceNotFound, RateTable
from tests.support.untraced import cpu_s

USD_A_MILLION = 10**12  # atto-dollars a token


@pytest.fixture(scope="module")
def file() -> PriceFile:
    return PriceFile()


def rates(price: Price, service: str | None = None, prompt_tokens: int = 1) -> dict[str, Decimal]:
    """Dollars for a million tokens."""
    found = price.rates(service, prompt_tokens)
    known: dict[str, int | None] = {one.name: getattr(found, one.name) for one in fields(Rates) if one.init}
    return {name: Decimal(rate) / USD_A_MILLION for name, rate in known.items() if rate}


def entry(**fields: object) -> PriceFile:
    return PriceFile({"m": {"litellm_provider": "p", "mode": "chat", **fields}})


PLAIN = {"input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6}


def test_every_class_is_read(file: PriceFile) -> None:
    price = entry(
        **PLAIN,
        cache_read_input_token_cost=1e-7,
        cache_creation_input_token_cost=1.25e-6,
        cache_creation_input_token_cost_above_1hr=2e-6,
        input_cost_per_audio_token=3e-6,
        output_cost_per_reasoning_token=5e-6,
        output_cost_per_audio_token=6e-6,
        input_cost_per_request=0.005,
    )
    assert rates(price.find("m").price()) == {
        "input": 1,
        "output": 4,
        "cached_input": Decimal("0.1"),
        "cache_write_5m": Decimal("1.25"),
        "cache_write_1h": 2,
        "input_audio": 3,
        "reasoning": 5,
        "output_audio": 6,
        "request": 5000,
    }


def test_pictures_have_a_price_where_the_model_makes_them() -> None:
    made = entry(**PLAIN, mode="image_generation", output_cost_per_image=0.134).find("m").price()
    assert made.rates(None, 1).images == 134 * 10**15
    # the file says this of a model that makes none, and means a token
    assert entry(**PLAIN, output_cost_per_image=0.00012).find("m").price().rates(None, 1).images is None


def test_long_prompts_services_and_both_have_their_rates(file: PriceFile) -> None:
    price = file.find("gpt-5.4").price()
    long = 272_001
    assert rates(price)["input"] == Decimal("2.5")
    assert rates(price, None, 272_000) == rates(price)
    assert rates(price, None, long)["output"] == Decimal("22.5")
    assert rates(price, "flex")["output"] == Decimal("7.5")
    assert rates(price, "flex", long)["output"] == Decimal("11.25")
    assert rates(price, "batch", long)["cached_input"] == Decimal("0.25")
    assert rates(price, "priority")["input"] == 5


def test_an_hour_of_cache_has_its_own_rate_for_long_prompts(file: PriceFile) -> None:
    price = file.find("anthropic.claude-sonnet-4-5-20250929-v1:0").price()
    assert rates(price)["cache_write_1h"] == 6
    assert rates(price, None, 200_001)["cache_write_1h"] == 12
    assert rates(price, None, 200_001)["cache_write_5m"] == Decimal("7.5")


def test_what_a_tier_leaves_out_costs_as_much_more_as_its_input_does() -> None:
    price = entry(
        **PLAIN,
        cache_read_input_token_cost=1e-7,
        input_cost_per_token_above_200k_tokens=2e-6,
        input_cost_per_token_priority=3e-6,
        input_cost_per_token_flex=5e-7,
        output_cost_per_token_flex=2e-6,
    )
    table = price.find("m").price()
    assert rates(table, None, 200_001) == {"input": 2, "output": 8, "cached_input": Decimal("0.2")}
    assert rates(table, "priority")["output"] == 12
    assert rates(table, "priority", 200_001) == {"input": 6, "output": 24, "cached_input": Decimal("0.6")}
    # a discount is not guessed
    assert rates(table, "flex") == {"input": Decimal("0.5"), "output": 2, "cached_input": Decimal("0.1")}
    assert rates(table, "flex", 200_001)["input"] == 2


def test_reasoning_costs_more_and_less_where_output_does() -> None:
    prices = entry(
        **PLAIN,
        output_cost_per_reasoning_token=6e-6,
        output_cost_per_token_flex=2e-6,
        output_cost_per_token_priority=8e-6,
        output_cost_per_reasoning_token_priority=11e-6,
    )
    price = prices.find("m").price()
    assert rates(price, "flex")["reasoning"] == 3
    assert rates(price, "priority")["reasoning"] == 11


def test_a_tier_without_a_rate_for_input_has_that_of_the_tier_below() -> None:
    table = entry(
        **PLAIN, input_cost_per_token_above_128k_tokens=2e-6, output_cost_per_token_above_200k_tokens=9e-6
    ).find("m")
    assert rates(table.price(), None, 200_001) == {"input": 2, "output": 9}


def test_prices_in_steps_are_tiers(file: PriceFile) -> None:
    price = file.find("dashscope/qwen-flash").price()
    assert rates(price, None, 256_000) == {"input": Decimal("0.05"), "output": Decimal("0.4")}
    assert rates(price, None, 256_001) == {"input": Decimal("0.25"), "output": 2}


def test_numbers_are_exactly_those_that_were_published_and_finer_ones_go_up() -> None:
    price = entry(input_cost_per_token=0.1e-6, output_cost_per_token=1.5000020000000002e-05).find("m").price()
    assert price.rates(None, 1).input == 100_000_000_000
    assert price.rates(None, 1).output == 15_000_020_000_001


@pytest.mark.parametrize("usd", [-1e-6, float("nan"), float("inf"), "free", True, None])
def test_what_is_no_price_is_not_taken_for_one(usd: object) -> None:
    with pytest.raises(PriceNotFound, match="is no price"):
        entry(**PLAIN | {"input_cost_per_token": usd}).find("m")


def test_a_nought_in_the_file_is_not_believed() -> None:
    with pytest.raises(PriceNotFound, match="nobody says what a token of input and of output costs"):
        entry(input_cost_per_token=0, output_cost_per_token=0.0).find("m").price()
    with pytest.raises(PriceNotFound, match="nobody says what a token of output costs"):
        entry(input_cost_per_token=1e-6, output_cost_per_token=0.0).find("m").price()
    assert entry(**PLAIN, cache_creation_input_token_cost=0).find("m").price().rates(None, 1).cache_write_5m is None


def test_embeddings_have_no_output_to_pay() -> None:
    assert rates(entry(mode="embedding", input_cost_per_token=1e-7).find("m").price()) == {"input": Decimal("0.1")}


def test_a_model_is_found_under_its_providers_name_only(file: PriceFile) -> None:
    assert file.find_for("openai", "gpt-5-mini").price() == file.find("gpt-5-mini").price()
    assert file.find_for("gemini", "gemini-2.5-pro").price() == file.find("gemini/gemini-2.5-pro").price()
    bedrock = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert file.find_for("bedrock", bedrock).price() == file.find(bedrock).price()
    with pytest.raises(PriceNotFound, match="no `groq/gpt-5-mini`"):
        file.find_for("groq", "gpt-5-mini")
    with pytest.raises(PriceNotFound, match="no `nobody`"):
        file.find("nobody")


def test_every_entry_of_the_file_is_a_price_or_a_sentence(file: PriceFile) -> None:
    usable = 0
    for name in file.names():
        try:
            price = file.find(name).price()
        except PriceNotFound:
            continue
        usable += 1
        assert min(rate for tier in price.tiers for rate in (tier.rates.input, tier.rates.output)) >= 0
        assert all(tier.rates.input > 0 for tier in price.tiers)
    assert usable > 3000


def test_said_later_replaces_and_a_factor_raises_all() -> None:
    table = RateTable()
    table.set("input", 10)
    table.set("output", 3)
    table.set("input", 11, service="flex")
    table.multiply(Decimal("1.1"))
    assert (table.price().rates(None, 1).input, table.price().rates(None, 1).output) == (11, 4)
    assert table.price().rates("flex", 1).input == 13
    table.set("output", 0)
    assert table.price().rates(None, 1).output == 0


def test_a_free_model_is_free_in_every_tier() -> None:
    table = RateTable()
    table.set("input", 0)
    table.set("output", 0)
    table.set("output", 5, above_prompt_tokens=100)
    assert [tier.rates.input for tier in table.price().tiers] == [0, 0]
    assert table.price().rates(None, 101).output == 5


def test_without_litellm_there_is_no_file_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_gateway.prices.find_spec", lambda _: None)
    with pytest.raises(PriceNotFound, match="not installed"):
        PriceFile().find("gpt-5-mini")


def test_the_file_is_read_in_a_fraction_of_a_second_and_litellm_is_not_imported() -> None:
    assert cpu_s(lambda: PriceFile().find("gpt-5-mini")) < 1  # 15 ms on an idle machine
    code = "import sys; from llm_gateway.prices import PriceFile; PriceFile().find('gpt-5-mini'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "litellm" not in loaded
