"""api.workspaces and its functions, as the caller."""

from datetime import datetime
from uuid import UUID

from postgrest import AsyncPostgrestClient, CountMethod

from api.http.pagination import Position
from api.supabase.postgrest import fetch_row, parse_rows, run
from api.workspaces.models import Workspace

_COLUMNS = "id,name,is_personal,created_by,created_at,updated_at"


async def fetch_workspace(db: AsyncPostgrestClient, workspace_id: UUID) -> Workspace | None:
    """The workspace, if the caller belongs to it."""
    return await fetch_row(db.from_("workspaces").select(_COLUMNS).eq("id", str(workspace_id)), Workspace)


async def list_workspaces(
    db: AsyncPostgrestClient, *, after: Position | None, max_rows: int, count: bool
) -> tuple[list[Workspace], int | None]:
    """At most `max_rows` of the caller's workspaces, oldest first, after the position; and how many there are in all.

    The count, where asked for, does not depend on the position: it is a query of its own then.
    """
    table = db.from_("workspaces")
    query = table.select(_COLUMNS, count=CountMethod.exact if count and after is None else None)
    if after is not None:
        # both values are typed, so nothing a client wrote reaches this filter
        at = after.created_at.isoformat()
        query = query.or_(f'created_at.gt."{at}",and(created_at.eq."{at}",id.gt.{after.row_id})')
    rows = await run(query.order("created_at").order("id").limit(max_rows))
    total = rows.total
    if count and after is not None:
        total = (await run(db.from_("workspaces").select("id", count=CountMethod.exact).limit(1))).total
    return parse_rows(rows.body, Workspace), total


async def create_workspace(db: AsyncPostgrestClient, name: str) -> Workspace:
    """A new workspace that the caller owns."""
    [workspace] = parse_rows((await run(db.rpc("create_workspace", {"name": name}))).body, Workspace)
    return workspace


async def rename_workspace(
    db: AsyncPostgrestClient, workspace_id: UUID, name: str, *, seen: datetime | None
) -> Workspace | None:
    """The renamed workspace; None where the caller may not rename it, or it is not of the version seen."""
    query = db.from_("workspaces").update({"name": name}).eq("id", str(workspace_id))
    if seen is not None:
        query = query.eq("updated_at", seen.isoformat())
    return await fetch_row(query.max_affected(1).select(_COLUMNS), Workspace)


async def delete_workspace(db: AsyncPostgrestClient, workspace_id: UUID) -> None:
    """The workspace and everything in it is gone. Raises: what api.delete_workspace refuses with."""
    await run(db.rpc("delete_workspace", {"workspace_id": str(workspace_id)}))
