"""/v1/workspaces/{workspace_id}/members."""

from uuid import UUID

from litestar import Router, delete, get, patch
from litestar.params import FromPath, JSONBody

from api.http.caller import SignedIn
from api.http.envelope import Answer, Listing, PageMeta
from api.http.openapi import BEARER, refusals
from api.http.pagination import AskedPage, Position, cut_page
from api.members.models import Member, MemberPatch, Membership
from api.members.queries import change_role, list_members, remove_member
from api.workspaces.service import get_workspace

_LIST = "members"


@get("/", security=BEARER, responses=refusals(404))
async def list_all(caller: SignedIn, workspace_id: FromPath[UUID], page: AskedPage) -> Listing[Member]:
    """Who belongs to the workspace, longest first."""
    rows, total = await list_members(
        caller.db, workspace_id, after=page.after(_LIST), max_rows=page.limit + 1, count=page.count_exactly
    )
    if not rows:  # a workspace has an owner, so either this is none of the caller's or the cursor is past the end
        await get_workspace(caller.db, workspace_id)
    shown, next_cursor = cut_page(rows, page, _LIST, lambda row: Position(row.created_at, row.user_id))
    members = [
        Member(user_id=row.user_id, display_name=row.profiles.display_name, role=row.role, created_at=row.created_at)
        for row in shown
    ]
    return Listing(data=members, meta=PageMeta(next_cursor=next_cursor, count=total))


@patch("/{user_id:uuid}", security=BEARER, responses=refusals(403, 404, 409, body=True))
async def patch_one(
    caller: SignedIn, workspace_id: FromPath[UUID], user_id: FromPath[UUID], data: JSONBody[MemberPatch]
) -> Answer[Membership]:
    """Change a member's role: owners everybody's, admins everybody's but owners'. There is always an owner."""
    return Answer(data=await change_role(caller.db, workspace_id, user_id, data.role))


@delete("/{user_id:uuid}", security=BEARER, responses=refusals(403, 404, 409))
async def delete_one(caller: SignedIn, workspace_id: FromPath[UUID], user_id: FromPath[UUID]) -> None:
    """Remove a member, or leave. There is always an owner."""
    await remove_member(caller.db, workspace_id, user_id)


ROUTER = Router(
    "/workspaces/{workspace_id:uuid}/members", route_handlers=[list_all, patch_one, delete_one], tags=["members"]
)
