"""What API keys look like from outside."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from api.http.body import RequestModel
from api.http.text import Name

Endpoint = Literal["chat", "responses", "embeddings", "messages", "count_tokens", "models"]
"""As the gateway names what it answers."""

_WEEK_S = 7 * 24 * 3600
_NanoUsd = Annotated[int, Field(ge=0, le=10**15, description="Nano-dollars: 1e-9 USD.")]
_ModelName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")]


class KeyLimits(BaseModel):
    """The limits of the key itself. Those of its person and its workspace hold as well. null: none of its own."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    calls_in_flight: int | None
    tokens_per_day: int | None
    nano_usd_per_day: int | None = Field(description="Nano-dollars: 1e-9 USD.")
    nano_usd_per_month: int | None = Field(description="Nano-dollars: 1e-9 USD.")


class ApiKey(BaseModel):
    """An API key, without its secret."""

    id: UUID
    user_id: UUID = Field(description="In whose name it calls, and whose limits it is charged to.")
    workspace_id: UUID | None = Field(description="The workspace it is charged to as well.")
    name: str
    hint: str = Field(description="The prefix and the last four characters of its newest secret.")
    models: list[str] | None = Field(description="The models it may use; null: all that its person may.")
    endpoints: list[Endpoint] | None = Field(description="The endpoints it may use; null: all.")
    limits: KeyLimits
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="At most a minute behind.")


class ApiKeyWithSecret(ApiKey):
    """An API key that was just made or rotated."""

    secret: str = Field(description="Shown this once. Send it as `Authorization: Bearer` or `x-api-key`.")


class NewKeyLimits(RequestModel):
    """Limits of the key itself; what is not named or null is not limited by it. 0 forbids."""

    requests_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=0, le=10**9)] | None = None
    calls_in_flight: Annotated[int, Field(ge=0, le=100_000)] | None = None
    tokens_per_day: Annotated[int, Field(ge=0, le=10**12)] | None = None
    nano_usd_per_day: _NanoUsd | None = None
    nano_usd_per_month: _NanoUsd | None = None


class NewApiKey(RequestModel):
    """A key to make, in your own name."""

    name: Name
    workspace_id: Annotated[UUID | None, Field(strict=False)] = None
    models: Annotated[list[_ModelName], Field(max_length=100)] | None = None
    endpoints: Annotated[list[Endpoint], Field(max_length=6)] | None = None
    expires_at: Annotated[AwareDatetime | None, Field(strict=False)] = None
    limits: NewKeyLimits | None = None


class ApiKeyPatch(RequestModel):
    """A merge patch; within `limits`, null lifts a limit, and what is not named stays."""

    name: Name = ""
    limits: NewKeyLimits = NewKeyLimits()


class Rotation(RequestModel):
    """How long the secrets so far go on working."""

    overlap_s: Annotated[int, Field(ge=0, le=_WEEK_S, description="Seconds; a day by default, a week at most.")] = (
        86_400
    )
