"""/v1/workspaces."""

from uuid import UUID

from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from api.http.caller import SignedIn
from api.http.envelope import Answer, Listing, PageMeta
from api.http.etag import IfMatch, etag, expected_version
from api.http.openapi import BEARER, refusals
from api.http.pagination import AskedPage, Position, cut_page
from api.workspaces.models import NewWorkspace, Workspace, WorkspacePatch
from api.workspaces.queries import create_workspace, delete_workspace, list_workspaces
from api.workspaces.service import get_workspace, rename

_LIST = "workspaces"


@post("/", security=BEARER, responses=refusals(body=True))
async def create(caller: SignedIn, data: JSONBody[NewWorkspace]) -> Response[Answer[Workspace]]:
    """Make a workspace; you own it."""
    made = await create_workspace(caller.db, data.name)
    return _with_etag(made, status=201, headers={"location": f"/v1/workspaces/{made.id}"})


@get("/", security=BEARER, responses=refusals())
async def list_mine(caller: SignedIn, page: AskedPage) -> Listing[Workspace]:
    """The workspaces you belong to, oldest first."""
    rows, total = await list_workspaces(
        caller.db, after=page.after(_LIST), max_rows=page.limit + 1, count=page.count_exactly
    )
    shown, next_cursor = cut_page(rows, page, _LIST, lambda row: Position(row.created_at, row.id))
    return Listing(data=shown, meta=PageMeta(next_cursor=next_cursor, count=total))


@get("/{workspace_id:uuid}", security=BEARER, responses=refusals(404))
async def get_one(caller: SignedIn, workspace_id: FromPath[UUID]) -> Response[Answer[Workspace]]:
    """One workspace; its `ETag` is for `If-Match`."""
    return _with_etag(await get_workspace(caller.db, workspace_id))


@patch("/{workspace_id:uuid}", security=BEARER, responses=refusals(403, 404, 412, body=True))
async def patch_one(
    caller: SignedIn, workspace_id: FromPath[UUID], data: JSONBody[WorkspacePatch], if_match: IfMatch = None
) -> Response[Answer[Workspace]]:
    """Rename it (owners and admins); with `If-Match`, only if nobody changed it since."""
    seen = expected_version(if_match)
    return _with_etag(await rename(caller.db, workspace_id, data.name, seen=seen))


@delete("/{workspace_id:uuid}", security=BEARER, responses=refusals(403, 404, 409))
async def delete_one(caller: SignedIn, workspace_id: FromPath[UUID]) -> None:
    """Delete it with everything in it (owners); a personal workspace stays."""
    await delete_workspace(caller.db, workspace_id)


def _with_etag(
    workspace: Workspace, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response[Answer[Workspace]]:
    return Response(
        Answer(data=workspace), status_code=status, headers={"etag": etag(workspace.updated_at), **(headers or {})}
    )


ROUTER = Router("/workspaces", route_handlers=[create, list_mine, get_one, patch_one, delete_one], tags=["workspaces"])
