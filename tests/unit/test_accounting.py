"""Cost is exact: integers, each class at its own rate, rounded up once; and no call costs more than was held."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.accounting import (
    CLASSES,
    Most,
    Price,
    PriceUnknown,
    Rates,
    ServiceUnpriced,
    Tier,
    TokenCounts,
    cost_nano_usd,
    most_nano_usd,
    unpriced,
)
from tests.support.prices import flat_price

TOKENS = st.integers(min_value=0, max_value=10**9)
USD = st.decimals(min_value=0, max_value=1000, places=12)
NANO = 10**9  # atto-dollars
# A prime for each class: a sum says which classes went into it, and how often.
PRIMES = Rates(
    input=2 * NANO,
    cached_input=3 * NANO,
    cache_write_5m=5 * NANO,
    cache_write_1h=7 * NANO,
    input_audio=11 * NANO,
    output=13 * NANO,
    reasoning=17 * NANO,
    output_audio=19 * NANO,
    images=23 * NANO,
    request=29 * NANO,
)


def rates(input: int, output: int, **more: int) -> Rates:  # noqa: A002
    return Rates(input=input * NANO, output=output * NANO, **{name: rate * NANO for name, rate in more.items()})


@pytest.mark.parametrize(
    ("a_price", "tokens", "nano_usd"),
    [
        # a million tokens of each class cost what the price list says
        (flat_price("2.50", "10.00", "1.25"), (10**6, 10**6, 10**6), 13_750_000_000),
        (flat_price("0.15", "0.60", "0.075"), (10**6, 0, 0), 150_000_000),
        # one cached token at $0.0375 a million is 37.5 nano-dollars: rounded up, once
        (flat_price("0.075", "0.30", "0.0375"), (0, 1, 0), 38),
        (flat_price("0.075", "0.30", "0.0375"), (0, 2, 0), 75),
        (flat_price("0.075", "0.30", "0.0375"), (0, 3, 1), 413),
        (flat_price("0.000000000001", "0"), (1, 0, 0), 1),
        (flat_price("0", "0"), (10**9, 10**9, 10**9), 0),
    ],
)
def test_cost_is_what_the_price_list_says(a_price: Price, tokens: tuple[int, int, int], nano_usd: int) -> None:
    counts = TokenCounts(input=tokens[0], cached_input=tokens[1], output=tokens[2])
    assert cost_nano_usd(a_price, counts) == nano_usd


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_is_charged_once_at_its_own_rate(name: str) -> None:
    counts = replace(TokenCounts(), **{name: 1000})
    assert cost_nano_usd(Price((Tier(PRIMES),)), counts) == 29 + 1000 * getattr(PRIMES, name) // NANO


def test_all_classes_together_cost_their_sum() -> None:
    counts = TokenCounts(**dict.fromkeys(CLASSES, 1))
    assert cost_nano_usd(Price((Tier(PRIMES),)), counts) == 2 + 3 + 5 + 7 + 11 + 13 + 17 + 19 + 23 + 29


@given(st.tuples(USD, USD, USD), st.tuples(TOKENS, TOKENS, TOKENS))
def test_cost_is_exact_and_rounded_up_once(usd: tuple[Decimal, ...], tokens: tuple[int, ...]) -> None:
    a_price = flat_price(str(usd[0]), str(usd[2]), str(usd[1]))
    exact = sum(Fraction(usd_per_million) * 1000 * count for usd_per_million, count in zip(usd, tokens, strict=True))
    counts = TokenCounts(input=tokens[0], cached_input=tokens[1], output=tokens[2])
    assert cost_nano_usd(a_price, counts) == ceil(exact)


def test_reading_a_cache_and_reasoning_cost_what_input_and_output_do_unless_they_have_a_price() -> None:
    assert cost_nano_usd(flat_price("3", "15"), TokenCounts(cached_input=10, reasoning=10)) == 180_000


def test_a_class_without_a_rate_is_never_free() -> None:
    a_price = flat_price("3", "15", "0.3")
    counts = TokenCounts(input=5, cache_write_1h=10)
    assert cost_nano_usd(a_price, counts) == 5 * 3_000 + 10 * 15_000
    assert unpriced(a_price, counts) == ["cache_write_1h"]
    assert unpriced(a_price, replace(counts, cache_write_1h=0)) == []


def test_a_class_without_a_rate_does_not_cost_what_a_picture_does() -> None:
    a_price = Price((Tier(rates(3, 15, images=40_000_000)),))
    assert cost_nano_usd(a_price, TokenCounts(input_audio=2, images=1)) == 30 + 40_000_000


def test_the_whole_of_a_long_prompt_and_its_answer_cost_the_higher_rates() -> None:
    a_price = Price((Tier(rates(1, 10)), Tier(rates(2, 15), 200_000), Tier(rates(4, 40), 500_000)))
    assert cost_nano_usd(a_price, TokenCounts(input=200_000, output=10)) == 200_000 + 100
    assert cost_nano_usd(a_price, TokenCounts(input=200_001, output=10)) == 2 * 200_001 + 150
    assert cost_nano_usd(a_price, TokenCounts(input=1, cached_input=500_000, output=10)) == 4 * 500_001 + 400
    assert cost_nano_usd(a_price, TokenCounts(output=300_000)) == 3_000_000  # the prompt decides


def test_a_call_costs_what_the_service_costs_that_the_provider_gave_it() -> None:
    a_price = Price((Tier(rates(2, 8)), Tier(rates(1, 4), 0, "flex"), Tier(rates(5, 20), 0, "priority")))
    counts = TokenCounts(input=10, output=10)
    costs = {
        service: cost_nano_usd(a_price, counts, service=service)
        for service in (None, "default", "auto", "scale", "standard_only", "flex", "priority", "new")
    }
    assert costs == {
        **dict.fromkeys((None, "default", "auto", "scale", "standard_only"), 100),
        "flex": 50,
        "priority": 250,
        "new": 250,  # nobody knows: the dearest
    }
    assert unpriced(a_price, counts, service="new") == ["service new"]
    assert unpriced(a_price, counts, service="flex") == []


def test_a_service_has_rates_of_its_own_for_long_prompts() -> None:
    a_price = Price(
        (Tier(rates(2, 8)), Tier(rates(4, 12), 100), Tier(rates(1, 4), 0, "flex"), Tier(rates(3, 6), 100, "flex"))
    )
    assert cost_nano_usd(a_price, TokenCounts(input=101), service="flex") == 303
    assert cost_nano_usd(a_price, TokenCounts(input=100), service="flex") == 100
    assert cost_nano_usd(a_price, TokenCounts(input=101)) == 404


COUNTS = st.builds(TokenCounts, **dict.fromkeys((name for name in CLASSES if name != "images"), TOKENS))
RATE = st.integers(min_value=0, max_value=10**15)
ALL_RATES = st.builds(Rates, **dict.fromkeys((*CLASSES, "request"), RATE))


@given(COUNTS, st.lists(ALL_RATES, min_size=4, max_size=4), st.sampled_from([None, "default", "flex"]), st.data())
def test_no_call_within_its_bounds_costs_more_than_was_held(
    counts: TokenCounts, rows: list[Rates], service: str | None, data: st.DataObject
) -> None:
    long = data.draw(st.integers(min_value=1, max_value=10**9))
    a_price = Price((Tier(rows[0]), Tier(rows[1], long), Tier(rows[2], 0, "flex"), Tier(rows[3], long, "flex")))
    most = Most(
        prompt_tokens=counts.prompt_tokens - counts.input_audio + data.draw(st.integers(0, 1000)),
        audio_tokens=counts.input_audio,
        output_tokens=counts.output_tokens,
        classes=tuple((name, "x") for name in ("cache_write_5m", "cache_write_1h", "input_audio", "output_audio")),
        service=service,
    )
    held = most_nano_usd(a_price, most)
    for given_service in {None, service}:
        assert cost_nano_usd(a_price, counts, service=given_service) <= held


@pytest.mark.parametrize("name", ["cache_write_5m", "cache_write_1h", "input_audio", "output_audio"])
def test_what_a_call_cannot_use_is_not_held(name: str) -> None:
    asked = Most(prompt_tokens=100, audio_tokens=10, output_tokens=10, classes=((name, "a_field"),))
    plain = replace(asked, classes=())
    a_price = Price((Tier(rates(2, 3, **{"cache_write_1h": 2, name: 50})),))
    assert most_nano_usd(a_price, plain) == 220 + 30
    expected = {"input_audio": 200 + 500 + 30, "output_audio": 220 + 500}.get(name, 110 * 50 + 30)
    assert most_nano_usd(a_price, asked) == expected


def test_who_sells_no_cache_by_the_hour_writes_it_unasked_and_that_is_held() -> None:
    most = Most(prompt_tokens=100, output_tokens=0)
    assert most_nano_usd(Price((Tier(rates(2, 3, cache_write_5m=5)),)), most) == 500
    assert most_nano_usd(Price((Tier(rates(2, 3, cache_write_5m=5, cache_write_1h=9)),)), most) == 200


def test_a_service_that_is_given_unasked_is_held_unless_another_is_asked_for() -> None:
    a_price = Price((Tier(rates(2, 8)), Tier(rates(5, 20), 0, "priority"), Tier(rates(1, 1), 0, "flex")))
    most = Most(prompt_tokens=10, output_tokens=0)
    assert most_nano_usd(a_price, most) == 20
    assert most_nano_usd(a_price, most, unasked_service="priority") == 50
    assert most_nano_usd(a_price, replace(most, service="auto"), unasked_service="priority") == 50
    assert most_nano_usd(a_price, replace(most, service="default"), unasked_service="priority") == 20
    assert most_nano_usd(a_price, replace(most, service="flex"), unasked_service="priority") == 20  # it may not get it
    assert most_nano_usd(a_price, replace(most, service="priority")) == 50


def test_a_call_that_costs_something_by_itself_is_held_with_it() -> None:
    assert most_nano_usd(Price((Tier(rates(1, 1, request=7)),)), Most(prompt_tokens=1, output_tokens=1)) == 9


def test_what_has_no_price_is_refused_and_the_field_named() -> None:
    most = Most(prompt_tokens=1, output_tokens=1, classes=(("cache_write_1h", "messages[0]"),))
    with pytest.raises(ServiceUnpriced) as refusal:
        most_nano_usd(flat_price("1", "1"), most)
    assert refusal.value.details == {"param": "messages[0]"}
    assert "for an hour has no price" in refusal.value.message
    with pytest.raises(ServiceUnpriced) as refusal:
        most_nano_usd(flat_price("1", "1"), Most(prompt_tokens=1, output_tokens=1, service="priority"))
    assert refusal.value.details == {"param": "service_tier"}


def test_a_model_without_a_price_is_refused_and_never_free() -> None:
    with pytest.raises(PriceUnknown) as refusal:
        most_nano_usd(None, Most(prompt_tokens=1, output_tokens=1))
    assert (refusal.value.status, refusal.value.code) == (400, "model_price_unknown")
    with pytest.raises(PriceUnknown):
        cost_nano_usd(None, TokenCounts())


@pytest.mark.parametrize("usd", ["-1", "NaN", "Infinity", "0.0000000000001"])
def test_a_price_that_is_no_whole_number_of_atto_dollars_is_refused(usd: str) -> None:
    with pytest.raises(ValueError, match="twelve decimals"):
        flat_price(usd, "1")


def test_negative_counts_are_a_mistake_and_not_a_refund() -> None:
    with pytest.raises(ValueError, match="never negative"):
        cost_nano_usd(flat_price("1", "1"), TokenCounts(input=5, cached_input=-1))


def test_prices_are_the_same_when_their_rates_are() -> None:
    assert Price((Tier(rates(1, 2)),)) == Price((Tier(rates(1, 2)),)) != Price((Tier(rates(1, 3)),))
    assert len({rates(1, 2), rates(1, 2)}) == 1
