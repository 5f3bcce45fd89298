"""The shape of models.toml, before anything is looked up in the environment or joined."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from llm_gateway.cache.wish import MAX_AGE_S
from llm_gateway.providers.presets import MaxOutputField, ProviderName
from llm_gateway.wire.format import Endpoint

Seconds = Annotated[float, Field(gt=0, le=3600)]
Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=12, allow_inf_nan=False)]
# What survives a URL's path, a header and a log line.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,119}$")]
Names = Annotated[
    tuple[Name, ...], Field(min_length=1), BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
]
VariableName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
OneLine = Annotated[str, Field(max_length=500, pattern=r"^[\x20-\x7e]*$")]

# What a model that writes text answers; one that makes embeddings says so.
_OF_WRITERS: tuple[Endpoint, ...] = ("chat", "responses", "messages", "count_tokens")


ServiceTier = Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,31}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriceEntry(_Strict):
    """US dollars for a million tokens of each class. Zero is a price; leaving one out is not (catalog_prices.py)."""

    input: Usd | None = None
    cached_input: Usd | None = None
    cache_write_5m: Usd | None = None
    cache_write_1h: Usd | None = None
    input_audio: Usd | None = None
    output: Usd | None = None
    reasoning: Usd | None = None
    output_audio: Usd | None = None


class PriceTierEntry(PriceEntry):
    """What holds instead for a service tier (flex, priority …), for prompts of more tokens than these, or for both."""

    above_prompt_tokens: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    service_tier: ServiceTier = "standard"


class TimeoutsEntry(_Strict):
    """Seconds: to connect, from the request to the first byte of the answer, between two pieces of it, altogether."""

    connect_s: Seconds = 5.0
    first_byte_s: Seconds = 60.0
    idle_s: Seconds = 60.0
    total_s: Seconds = 600.0


class DeploymentEntry(_Strict):
    """One place where a model is served. What is left out is as the provider's preset has it (providers/presets.py)."""

    provider: ProviderName = "openai-compatible"
    base_url: str | None = None
    api_key_env: VariableName | None = None
    api_version: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(-preview)?$")] | None = None
    options: dict[str, str] = Field(default_factory=dict)
    native: tuple[Endpoint, ...] | None = None
    model: Annotated[str, Field(min_length=1, max_length=256)]
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    price: Annotated[str, Field(pattern=r"^litellm:\S{1,200}$")] | None = None
    price_factor: Annotated[Decimal, Field(gt=0, le=100, allow_inf_nan=False)] = Decimal(1)
    price_usd_per_million_tokens: PriceEntry = PriceEntry()
    price_tiers_usd_per_million_tokens: tuple[PriceTierEntry, ...] = ()
    price_usd_per_picture: Usd | None = None
    price_usd_per_call: Usd | None = None
    unasked_service_tier: ServiceTier | None = None
    max_output_field: MaxOutputField | None = None
    timeouts: TimeoutsEntry = TimeoutsEntry()


class ModelEntry(_Strict):
    """One public name. `note` goes with every answer, in the header `x-buttress-model-note`.

    `image_tokens` is the most that one picture counts for; without it the model takes no pictures. `cache_ttl_s`: calls
    that say nothing about it may be answered with an answer of this age.
    """

    name: Name
    description: str = ""
    note: OneLine | None = None
    owned_by: OneLine = "buttress"
    created: Annotated[int, Field(ge=0)] = 0
    context_window: Annotated[int, Field(ge=1, le=100_000_000)]
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)]
    image_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tokenizer: Literal["cl100k_base", "o200k_base"] | None = None
    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1)] = _OF_WRITERS
    cache_ttl_s: Annotated[int, Field(ge=1, le=MAX_AGE_S)] | None = None
    fallbacks: tuple[Name, ...] = ()
    deployments: Annotated[tuple[DeploymentEntry, ...], Field(min_length=1)]


class AliasEntry(_Strict):
    """One public name that stands for another, or for several: the best first, the next ones while that cannot."""

    name: Name
    alias_of: Names
    description: str = ""


class CatalogEntry(_Strict):
    """The whole file."""

    models: tuple[ModelEntry, ...] = ()
    aliases: tuple[AliasEntry, ...] = ()
