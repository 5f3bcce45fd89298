"""What a deployment of models.toml costs: its own words, litellm's price file, or the one on top of the other."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from llm_gateway.accounting import STANDARD, Price, atto_usd_per_token
from llm_gateway.catalog_file import DeploymentEntry, PriceEntry
from llm_gateway.prices import PriceFile, PriceNotFound, RateTable

_ATTO: Final = 10**18
# Whose price follows from the name of the model. What Azure calls a model is its operator's choice, and may be the name
# of a cheaper one; OpenRouter has many prices for one model; what the operator serves himself costs what he says.
_IN_THE_FILE: Final = frozenset({"anthropic", "bedrock", "gemini", "groq", "mistral", "openai"})


def price_of(entry: DeploymentEntry, file: PriceFile) -> Price:
    """The price of the deployment.

    With `price` it is that entry of litellm's file; without, and where input or output was left out, the entry of the
    provider's model. What models.toml says replaces the same rate of the file. Raises: PriceNotFound.
    """
    own = entry.price_usd_per_million_tokens
    table = RateTable()
    if entry.price is not None:
        table = file.find(entry.price.removeprefix("litellm:"))
    elif (own.input is None or own.output is None) and entry.provider in _IN_THE_FILE:
        table = file.find_for(entry.provider, entry.model)
    table.multiply(entry.price_factor)
    _add(table, own)
    for tier in entry.price_tiers_usd_per_million_tokens:
        _add(table, tier, service=tier.service_tier, above_prompt_tokens=tier.above_prompt_tokens)
    if entry.price_usd_per_picture is not None:
        table.set("images", int(entry.price_usd_per_picture * _ATTO))
    if entry.price_usd_per_call is not None:
        table.set("request", int(entry.price_usd_per_call * _ATTO))
    price = table.price()
    if entry.unasked_service_tier is not None and not price.sells(entry.unasked_service_tier):
        raise PriceNotFound(f"nobody says what its unasked_service_tier {entry.unasked_service_tier} costs")
    return price


def _add(table: RateTable, said: PriceEntry, *, service: str = STANDARD, above_prompt_tokens: int = 0) -> None:
    for name in PriceEntry.model_fields:
        usd: Decimal | None = getattr(said, name)
        if usd is not None:
            table.set(name, atto_usd_per_token(usd), service=service, above_prompt_tokens=above_prompt_tokens)
