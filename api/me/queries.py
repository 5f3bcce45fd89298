"""api.profiles, as the caller."""

from datetime import datetime
from uuid import UUID

from postgrest import AsyncPostgrestClient
from pydantic import BaseModel

from api.supabase.postgrest import fetch_row

_COLUMNS = "id,display_name,created_at,updated_at"


class ProfileRow(BaseModel):
    """One row of api.profiles."""

    id: UUID
    display_name: str
    created_at: datetime
    updated_at: datetime


async def fetch_profile(db: AsyncPostgrestClient, user_id: UUID) -> ProfileRow | None:
    """The profile, if the caller may see it."""
    return await fetch_row(db.from_("profiles").select(_COLUMNS).eq("id", str(user_id)), ProfileRow)


async def rename_profile(db: AsyncPostgrestClient, user_id: UUID, display_name: str) -> ProfileRow | None:
    """The profile with its new name; None where it is not the caller's."""
    query = db.from_("profiles").update({"display_name": display_name}).eq("id", str(user_id))
    return await fetch_row(query.max_affected(1).select(_COLUMNS), ProfileRow)
