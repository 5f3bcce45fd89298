"""api.members and its functions, as the caller."""

from datetime import datetime
from uuid import UUID

from postgrest import AsyncPostgrestClient, CountMethod
from pydantic import BaseModel

from api.http.pagination import Position
from api.members.models import Membership, Role
from api.supabase.postgrest import parse_rows, run


class _Profile(BaseModel):
    display_name: str


class MemberRow(BaseModel):
    """One row of api.members with the name on its profile."""

    user_id: UUID
    role: Role
    created_at: datetime
    profiles: _Profile


async def list_members(
    db: AsyncPostgrestClient, workspace_id: UUID, *, after: Position | None, max_rows: int, count: bool
) -> tuple[list[MemberRow], int | None]:
    """At most `max_rows` members, longest first, after the position; and how many there are in all, where asked for."""
    ours = str(workspace_id)
    query = db.from_("members").select(
        "user_id,role,created_at,profiles(display_name)",
        count=CountMethod.exact if count and after is None else None,
    )
    query = query.eq("workspace_id", ours)
    if after is not None:
        # both values are typed, so nothing a client wrote reaches this filter
        at = after.created_at.isoformat()
        query = query.or_(f'created_at.gt."{at}",and(created_at.eq."{at}",user_id.gt.{after.row_id})')
    rows = await run(query.order("created_at").order("user_id").limit(max_rows))
    total = rows.total
    if count and after is not None:
        all_of_them = db.from_("members").select("user_id", count=CountMethod.exact).eq("workspace_id", ours)
        total = (await run(all_of_them.limit(1))).total
    return parse_rows(rows.body, MemberRow), total


async def change_role(db: AsyncPostgrestClient, workspace_id: UUID, user_id: UUID, role: Role) -> Membership:
    """The membership with its new role. Raises: what api.change_member_role refuses with."""
    parameters = {"workspace_id": str(workspace_id), "user_id": str(user_id), "role": role}
    [changed] = parse_rows((await run(db.rpc("change_member_role", parameters))).body, Membership)
    return changed


async def remove_member(db: AsyncPostgrestClient, workspace_id: UUID, user_id: UUID) -> None:
    """The person is no member any more. Raises: what api.remove_member refuses with."""
    await run(db.rpc("remove_member", {"workspace_id": str(workspace_id), "user_id": str(user_id)}))
