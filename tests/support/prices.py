"""Prices as vendors publish them."""

from decimal import Decimal

from llm_gateway.accounting import Price, Rates, Tier, atto_usd_per_token


def flat_price(input: str, output: str, cached_input: str | None = None) -> Price:  # noqa: A002 (the lists' own word)
    """One rate for each class and every service. Units: US dollars for a million tokens."""
    return Price(
        (
            Tier(
                Rates(
                    input=atto_usd_per_token(Decimal(input)),
                    output=atto_usd_per_token(Decimal(output)),
                    cached_input=None if cached_input is None else atto_usd_per_token(Decimal(cached_input)),
                )
            ),
        )
    )
