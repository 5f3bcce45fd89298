"""What workspaces look like from outside."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.http.body import RequestModel
from api.http.text import Name


class Workspace(BaseModel):
    """A place that people share."""

    id: UUID
    name: str
    is_personal: bool = Field(description="Made at sign-up; cannot be deleted.")
    created_by: UUID | None = Field(description="null once that person is gone.")
    created_at: datetime
    updated_at: datetime


class NewWorkspace(RequestModel):
    """A workspace to make; whoever makes it owns it."""

    name: Name


class WorkspacePatch(RequestModel):
    """A merge patch; the one thing that can change so far is required."""

    name: Name
