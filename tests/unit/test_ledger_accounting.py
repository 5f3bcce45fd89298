"""Cost is exact: integers, rounded up once."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.accounting import Price, PriceUnknown, cost_nano_usd, most_nano_usd

TOKENS = st.integers(min_value=0, max_value=10**9)
USD = st.decimals(min_value=0, max_value=1000, places=12)


def price(input: str, output: str, cached_input: str | None = None) -> Price:  # noqa: A002
    cached = None if cached_input is None else Decimal(cached_input)
    return Price.from_usd_per_million(input=Decimal(input), output=Decimal(output), cached_input=cached)


@pytest.mark.parametrize(
    ("a_price", "tokens", "nano_usd"),
    [
        # a million tokens of each class cost what the price list says
        (price("2.50", "10.00", "1.25"), (10**6, 10**6, 10**6), 13_750_000_000),
        (price("0.15", "0.60", "0.075"), (10**6, 0, 0), 150_000_000),
        # one cached token at $0.0375 a million is 37.5 nano-dollars: rounded up, once
        (price("0.075", "0.30", "0.0375"), (0, 1, 0), 38),
        (price("0.075", "0.30", "0.0375"), (0, 2, 0), 75),
        (price("0.075", "0.30", "0.0375"), (0, 3, 1), 413),
        (price("0.000000000001", "0"), (1, 0, 0), 1),
        (price("0", "0"), (10**9, 10**9, 10**9), 0),
    ],
)
def test_cost_is_what_the_price_list_says(a_price: Price, tokens: tuple[int, int, int], nano_usd: int) -> None:
    cost = cost_nano_usd(a_price, input_tokens=tokens[0], cached_input_tokens=tokens[1], output_tokens=tokens[2])
    assert cost == nano_usd


@given(st.tuples(USD, USD, USD), st.tuples(TOKENS, TOKENS, TOKENS))
def test_cost_is_exact_and_rounded_up_once(usd: tuple[Decimal, ...], tokens: tuple[int, ...]) -> None:
    a_price = Price.from_usd_per_million(input=usd[0], cached_input=usd[1], output=usd[2])
    exact = sum(Fraction(usd_per_million) * 1000 * count for usd_per_million, count in zip(usd, tokens, strict=True))
    cost = cost_nano_usd(a_price, input_tokens=tokens[0], cached_input_tokens=tokens[1], output_tokens=tokens[2])
    assert cost == ceil(exact)


@given(st.tuples(USD, USD, USD), st.tuples(TOKENS, TOKENS, TOKENS))
def test_no_call_within_its_bounds_costs_more_than_was_held(usd: tuple[Decimal, ...], tokens: tuple[int, ...]) -> None:
    a_price = Price.from_usd_per_million(input=usd[0], cached_input=usd[1], output=usd[2])
    fresh, cached, output = tokens
    held = most_nano_usd(a_price, prompt_tokens=fresh + cached, output_tokens=output)
    assert cost_nano_usd(a_price, input_tokens=fresh, cached_input_tokens=cached, output_tokens=output) <= held


def test_cached_input_without_a_price_of_its_own_costs_what_input_costs() -> None:
    assert price("3", "15") == price("3", "15", "3")


def test_a_model_without_a_price_is_refused_and_never_free() -> None:
    with pytest.raises(PriceUnknown) as refusal:
        most_nano_usd(None, prompt_tokens=1, output_tokens=1)
    assert (refusal.value.status, refusal.value.code) == (400, "model_price_unknown")


@pytest.mark.parametrize("usd", ["-1", "NaN", "Infinity", "0.0000000000001"])
def test_a_price_that_is_no_whole_number_of_atto_dollars_is_refused(usd: str) -> None:
    with pytest.raises(ValueError, match="twelve decimals"):
        price(usd, "1")


def test_negative_counts_are_a_mistake_and_not_a_refund() -> None:
    with pytest.raises(ValueError, match="never negative"):
        cost_nano_usd(price("1", "1"), input_tokens=5, cached_input_tokens=-1, output_tokens=0)
