"""What models.toml and litellm's price file say together; whoever says nothing does not start."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from llm_gateway.accounting import Price, Rates
from llm_gateway.catalog import CatalogInvalid
from tests.support.catalogs import catalog_of

ENVIRON = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "AZURE_OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"}
AZURE = {"AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com"}
USD_A_MILLION = 10**12


def price(tmp_path: Path, deployment: str) -> Price:
    models = f"""
[[models]]
name = "a"
context_window = 1_000_000
max_output_tokens = 5000
[[models.deployments]]
{deployment}
"""
    return catalog_of(tmp_path, models, ENVIRON | AZURE).find("a").deployments[0].price


def refusal(tmp_path: Path, deployment: str) -> str:
    with pytest.raises(CatalogInvalid) as invalid:
        price(tmp_path, deployment)
    return str(invalid.value)


def usd(found: Rates, name: str) -> Decimal | None:
    rate: int | None = getattr(found, name)
    return None if rate is None else Decimal(rate) / USD_A_MILLION


def test_the_price_of_a_vendors_model_follows_from_its_name(tmp_path: Path) -> None:
    claude = price(tmp_path, 'provider = "anthropic"\nmodel = "claude-haiku-4-5"').rates(None, 1)
    assert [usd(claude, name) for name in ("input", "cached_input", "cache_write_5m", "cache_write_1h", "output")] == [
        1,
        Decimal("0.1"),
        Decimal("1.25"),
        2,
        5,
    ]
    gemini = price(tmp_path, 'provider = "gemini"\nmodel = "gemini-2.5-pro"')
    assert usd(gemini.rates(None, 200_001), "input") == Decimal("2.5")


def test_a_price_can_be_named(tmp_path: Path) -> None:
    named = price(tmp_path, 'provider = "azure"\nmodel = "ours"\nprice = "litellm:azure/gpt-5.4"')
    assert usd(named.rates("priority", 272_001), "output") == 45


def test_what_is_said_replaces_what_the_file_says_class_by_class(tmp_path: Path) -> None:
    mixed = price(
        tmp_path,
        'provider = "openai"\nmodel = "gpt-5.4"\nprice_usd_per_million_tokens = { cached_input = 0.2, output = 14 }',
    )
    assert [usd(mixed.rates(None, 1), name) for name in ("input", "cached_input", "output")] == [
        Decimal("2.5"),
        Decimal("0.2"),
        14,
    ]
    assert usd(mixed.rates("flex", 1), "output") == Decimal("7.5")


def test_a_price_that_is_said_whole_is_all_there_is(tmp_path: Path) -> None:
    whole = price(
        tmp_path, 'provider = "openai"\nmodel = "gpt-5.4"\nprice_usd_per_million_tokens = { input = 0, output = 0 }'
    )
    assert [tier.rates for tier in whole.tiers] == [Rates(input=0, output=0)]


def test_every_class_tier_and_fee_can_be_said(tmp_path: Path) -> None:
    classes = ("input", "cached_input", "cache_write_5m", "cache_write_1h", "input_audio", "output", "reasoning")
    said = ", ".join(f"{name} = {number}" for number, name in enumerate((*classes, "output_audio"), start=1))
    own = price(
        tmp_path,
        f"""
base_url = "http://x/v1"
model = "m"
price_usd_per_million_tokens = {{ {said} }}
price_tiers_usd_per_million_tokens = [
    {{ above_prompt_tokens = 200_000, input = 10 }},
    {{ service_tier = "flex", input = 0.5, output = 3 }},
    {{ service_tier = "flex", above_prompt_tokens = 200_000, output = 50 }},
]
price_usd_per_picture = 0.04
price_usd_per_call = 0.005
unasked_service_tier = "flex"
""",
    )
    plain = own.rates(None, 1)
    assert [usd(plain, name) for name in (*classes, "output_audio")] == list(range(1, 9))
    assert (plain.images, plain.request) == (4 * 10**16, 5 * 10**15)
    assert usd(own.rates(None, 200_001), "input") == 10
    assert usd(own.rates("flex", 1), "input") == Decimal("0.5")
    assert usd(own.rates("flex", 200_001), "output") == 50
    assert usd(own.rates("flex", 200_001), "input") == 10


def test_a_region_may_cost_more(tmp_path: Path) -> None:
    there = price(tmp_path, 'provider = "openai"\nmodel = "gpt-5.4"\nprice_factor = 1.1')
    assert usd(there.rates(None, 1), "input") == Decimal("2.75")


@pytest.mark.parametrize(
    ("deployment", "sentence"),
    [
        (
            'base_url = "http://x/v1"\nmodel = "gpt-5.4"',
            "a#1: gpt-5.4 has no price: nobody says what a token of input and of output costs. Say it in",
        ),
        ('provider = "azure"\nmodel = "gpt-5.4"', "a#1: gpt-5.4 has no price"),  # an operator's own name for anything
        ('provider = "openai"\nmodel = "gpt-99"', "litellm's price file has no `openai/gpt-99`"),
        ('provider = "gemini"\nmodel = "gemini-exp-1206"', "nobody says what a token of input and of output costs"),
        ('provider = "openai"\nmodel = "m"\nprice = "litellm:nothing"', "litellm's price file has no `nothing`"),
        ('provider = "openai"\nmodel = "m"\nprice = "free"', "deployments[0].price: string should match"),
        (
            'provider = "anthropic"\nmodel = "claude-haiku-4-5"\nunasked_service_tier = "priority"',
            "nobody says what its unasked_service_tier priority costs",
        ),
    ],
)
def test_who_has_no_price_does_not_start(tmp_path: Path, deployment: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, deployment)


def test_a_price_is_missed_even_where_the_key_is(tmp_path: Path) -> None:
    models = """
[[models]]
name = "a"
context_window = 10
max_output_tokens = 5
[[models.deployments]]
provider = "openai"
model = "gpt-99"
"""
    with pytest.raises(CatalogInvalid, match="gpt-99 has no price"):
        catalog_of(tmp_path, models)


def test_the_examples_of_the_file_that_comes_with_it_have_prices(tmp_path: Path) -> None:
    text = Path("llm_gateway/models.toml").read_text()
    examples = text.partition("# One example for each provider.")[2].partition("\n")[2]
    models = "\n".join(line.removeprefix("#").removeprefix(" ") for line in examples.splitlines())
    names = [
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "MISTRAL_API_KEY",
        "GROQ_API_KEY",
        "OPENROUTER_API_KEY",
    ]
    environ = ENVIRON | AZURE | dict.fromkeys(names, "x") | {"VLLM_URL": "http://vllm/v1"}
    catalog = catalog_of(tmp_path, models, environ)
    assert catalog.unavailable == ()
    model = catalog.find("gpt-5-mini")
    assert len({where.price.rates(None, 1) for where in model.deployments}) == 1
    assert model.bounds.tokenizer == "o200k_base"
    assert catalog.find("claude-haiku").deployments[0].price.rates(None, 1).cache_write_1h is not None
