"""What a workspace's settings for calls to models look like from outside."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, model_validator

from api.http.body import RequestModel

# As models.toml names them (llm_gateway/catalog_file.py); whether there is such a model is found out by calling it.
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,119}$")]
Endpoint = Literal["chat", "responses", "embeddings", "messages"]


class LlmSettings(BaseModel):
    """The settings of one workspace. They hold for calls that are made for it, from the next second on."""

    models: list[str] | None = Field(description="The models its calls may use, as fallbacks too; null: all.")
    redact: bool = Field(
        description="E-mail addresses, phone and card numbers are taken out of what goes to a provider, where they are "
        "written in a usual way: what is spelled out, encoded, or in a picture or a file is not found."
    )
    redact_answers: bool = Field(description="The same of what comes back.")
    store_content: bool = Field(description="Requests and answers are kept, for owners and admins to read.")
    store_days: int = Field(description="For how long.")
    updated_at: datetime


class LlmSettingsPatch(RequestModel):
    """A merge patch: what is left out stays as it is."""

    models: Annotated[list[ModelName], Field(max_length=1000)] | None = Field(
        default=None, description="null: all of them."
    )
    redact: bool = False
    redact_answers: bool = False
    store_content: bool = Field(default=False, description="Turning it off deletes what was kept.")
    store_days: Annotated[int, Field(ge=1, le=365)] = Field(
        default=30, description="Holds for what is kept already, too."
    )

    @model_validator(mode="after")
    def _says_something(self) -> "LlmSettingsPatch":
        if not self.model_fields_set:
            raise ValueError("must change something")
        return self


class StoredCall(BaseModel):
    """One call that was kept, as the provider and the caller saw it."""

    id: UUID
    created_at: datetime
    expires_at: datetime
    call_id: str = Field(description="As in the header `x-buttress-call-id`.")
    user_id: UUID = Field(description="Who called.")
    endpoint: Endpoint
    model: str
    is_stream: bool = Field(description="The answer is a stream of server-sent events; else it is JSON.")
    is_cut: bool = Field(description="Not all of it was given, or not all of it is kept.")
    request: str
    answer: str
