"""What usage looks like from outside."""

from datetime import date
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

Grouping = Literal["day", "user", "key", "model"]


class UsageSums(BaseModel):
    """What was used, for one combination of what it is grouped by; what it is not grouped by is null."""

    day: date | None = Field(description="A UTC day.")
    user_id: UUID | None
    key_id: UUID | None = Field(description="null, grouped by key: the calls with an access token.")
    model: str | None
    calls: int
    estimated_calls: int = Field(description="Of these calls, how many are settled at an estimate.")
    input_tokens: int = Field(description="Of prompts, all that were not read from a provider's cache.")
    cached_input_tokens: int = Field(description="Of prompts, those read from a provider's cache.")
    cache_write_tokens: int = Field(description="Of `input_tokens`, those written to a provider's cache.")
    output_tokens: int
    reasoning_tokens: int = Field(description="Of `output_tokens`, those a model thought with.")
    images: int
    cost_nano_usd: int = Field(description="Nano-dollars: 1e-9 USD.")
