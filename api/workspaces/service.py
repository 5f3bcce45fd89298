"""The rules of workspaces that are not Postgres' own: what to say when nothing was changed."""

from datetime import datetime
from uuid import UUID

from postgrest import AsyncPostgrestClient

from api.workspaces.models import Workspace
from api.workspaces.queries import fetch_workspace, rename_workspace
from core.errors import NotAllowed, NotFound, PreconditionFailed


class WorkspaceNotFound(NotFound):
    """It does not exist, or the caller does not belong to it: the same answer."""

    default_code = "workspace_not_found"
    default_message = "There is no workspace with this id."


async def get_workspace(db: AsyncPostgrestClient, workspace_id: UUID) -> Workspace:
    """The workspace. Raises: WorkspaceNotFound."""
    workspace = await fetch_workspace(db, workspace_id)
    if workspace is None:
        raise WorkspaceNotFound
    return workspace


async def rename(db: AsyncPostgrestClient, workspace_id: UUID, name: str, *, seen: datetime | None) -> Workspace:
    """The workspace with its new name. seen: the version the caller knows, None where any will do.

    A forbidden update changes no row and says nothing, so the reason is found out by reading.
    Raises: WorkspaceNotFound, NotAllowed, PreconditionFailed.
    """
    renamed = await rename_workspace(db, workspace_id, name, seen=seen)
    if renamed is not None:
        return renamed
    current = await get_workspace(db, workspace_id)
    if seen is not None and current.updated_at != seen:
        raise PreconditionFailed
    raise NotAllowed("Only owners and admins can rename a workspace.")
