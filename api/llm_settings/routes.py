"""/v1/workspaces/{id}/llm."""

from uuid import UUID

from litestar import Router, get, patch
from litestar.params import FromPath, JSONBody

from api.http.caller import SignedIn
from api.http.envelope import Answer, Listing, PageMeta
from api.http.openapi import BEARER, refusals
from api.http.pagination import AskedPage, Position, cut_page
from api.llm_settings.models import LlmSettings, LlmSettingsPatch, StoredCall
from api.llm_settings.queries import change_settings, fetch_settings, list_stored_calls

_LIST = "stored_calls"


@get("/", security=BEARER, responses=refusals(404))
async def get_settings(caller: SignedIn, workspace_id: FromPath[UUID]) -> Answer[LlmSettings]:
    """What the workspace has decided about its calls to models (its members)."""
    return Answer(data=await fetch_settings(caller.db, workspace_id))


@patch("/", security=BEARER, responses=refusals(403, 404, body=True))
async def patch_settings(
    caller: SignedIn, workspace_id: FromPath[UUID], data: JSONBody[LlmSettingsPatch]
) -> Answer[LlmSettings]:
    """Change it (owners and admins)."""
    changes = data.model_dump(mode="json", exclude_unset=True)
    return Answer(data=await change_settings(caller.db, workspace_id, changes))


@get("/calls", security=BEARER, responses=refusals(403, 404))
async def list_calls(caller: SignedIn, workspace_id: FromPath[UUID], page: AskedPage) -> Listing[StoredCall]:
    """The calls it chose to keep, newest first (owners and admins)."""
    rows = await list_stored_calls(caller.db, workspace_id, after=page.after(_LIST), max_rows=page.limit + 1)
    shown, next_cursor = cut_page(rows, page, _LIST, lambda row: Position(row.created_at, row.id))
    return Listing(data=shown, meta=PageMeta(next_cursor=next_cursor))


ROUTER = Router(
    "/workspaces/{workspace_id:uuid}/llm",
    route_handlers=[get_settings, patch_settings, list_calls],
    tags=["workspaces"],
)
