"""What a person's own profile looks like from outside."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from api.http.body import RequestModel
from api.http.text import Name


class Me(BaseModel):
    """The caller."""

    id: UUID
    email: str | None
    display_name: str
    created_at: datetime
    updated_at: datetime


class MePatch(RequestModel):
    """A merge patch; the one thing a person can change so far is required, so that a patch always changes something."""

    display_name: Name
