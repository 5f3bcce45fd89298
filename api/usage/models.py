"""What usage looks like from outside."""

from datetime import date

from pydantic import BaseModel, Field


class UsageOfDay(BaseModel):
    """What the caller used of one model on one UTC day."""

    day: date
    model: str
    calls: int
    estimated_calls: int = Field(description="Of these calls, how many are settled at an estimate.")
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_nano_usd: int = Field(description="Nano-dollars: 1e-9 USD.")
