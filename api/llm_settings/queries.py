"""The functions of schema api about a workspace's settings for calls to models, as the caller."""

from typing import cast
from uuid import UUID

from postgrest import AsyncPostgrestClient

from api.http.pagination import Position
from api.llm_settings.models import LlmSettings, StoredCall
from api.supabase.postgrest import parse_rows, run


async def fetch_settings(db: AsyncPostgrestClient, workspace_id: UUID) -> LlmSettings:
    """The settings, as they are without any change where there was none. Raises: what api.llm_settings refuses with."""
    [settings] = parse_rows((await run(db.rpc("llm_settings", {"workspace_id": str(workspace_id)}))).body, LlmSettings)
    return settings


async def change_settings(db: AsyncPostgrestClient, workspace_id: UUID, changes: dict[str, object]) -> LlmSettings:
    """The settings, changed. Raises: what api.change_llm_settings refuses with."""
    # the client's type knows text only; it sends any JSON
    given = cast("dict[str, str]", {"workspace_id": str(workspace_id), "changes": changes})
    [settings] = parse_rows((await run(db.rpc("change_llm_settings", given))).body, LlmSettings)
    return settings


async def list_stored_calls(
    db: AsyncPostgrestClient, workspace_id: UUID, *, after: Position | None, max_rows: int
) -> list[StoredCall]:
    """At most `max_rows` stored calls, newest first, after the position. Raises: what api.stored_calls refuses with."""
    parameters: dict[str, object] = {"workspace_id": str(workspace_id), "page_size": max_rows}
    if after is not None:
        parameters |= {"after_created_at": after.created_at.isoformat(), "after_id": str(after.row_id)}
    given = cast("dict[str, str]", parameters)
    return parse_rows((await run(db.rpc("stored_calls", given))).body, StoredCall)
