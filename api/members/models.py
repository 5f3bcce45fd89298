"""What memberships look like from outside."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from api.http.body import RequestModel

Role = Literal["owner", "admin", "member", "viewer"]


class Member(BaseModel):
    """A person in a workspace."""

    user_id: UUID
    display_name: str
    role: Role
    created_at: datetime


class Membership(BaseModel):
    """Who is what in which workspace."""

    workspace_id: UUID
    user_id: UUID
    role: Role
    created_at: datetime


class MemberPatch(RequestModel):
    """A merge patch; the one thing that can change is required."""

    role: Role
