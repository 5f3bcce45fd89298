"""The two shapes every answer has: data with meta, or an error."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Meta(BaseModel):
    """Facts about an answer that are not part of the thing itself; empty for a single thing."""


class PageMeta(BaseModel):
    """Where the next page begins, and how many there are when it was asked for."""

    next_cursor: str | None = Field(
        default=None, description="Send it back as `cursor` for the next page; null: the last one."
    )
    count: int | None = Field(default=None, description="All that match; only with `count=exact`.")


class Answer(BaseModel, Generic[T]):
    """One thing."""

    data: T
    meta: Meta = Field(default_factory=Meta)


class Listing(BaseModel, Generic[T]):
    """One page of things."""

    data: list[T]
    meta: PageMeta = Field(default_factory=PageMeta)


class ErrorPart(BaseModel):
    """What went wrong, for a program (`code`) and for a person (`message`)."""

    model_config = ConfigDict(json_schema_extra={"required": ["code", "message", "details", "request_id"]})

    code: str
    message: str
    # Any: each code has details of its own, all plain JSON.
    details: dict[str, Any] | None = None
    request_id: str


class ErrorBody(BaseModel):
    """The body of every refusal."""

    error: ErrorPart
