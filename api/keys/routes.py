"""/v1/keys."""

from typing import Annotated
from uuid import UUID

from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from api.http.caller import SignedIn
from api.http.envelope import Answer, Listing, PageMeta
from api.http.openapi import BEARER, refusals
from api.http.pagination import MAX_LIMIT, Page, Position, cut_page
from api.keys.models import ApiKey, ApiKeyPatch, ApiKeyWithSecret, NewApiKey, Rotation
from api.keys.queries import list_keys, revoke_key
from api.keys.service import change_key, get_key, make_key, renew_secret
from api.services import SharedServices
from api.workspaces.service import get_workspace

_LIST = "keys"

OfWorkspace = Annotated[
    UUID | None, QueryParameter(description="The keys of this workspace: all of them for its owners and admins.")
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Rows a page.")]
Cursor = Annotated[str | None, QueryParameter(max_length=200, description="`meta.next_cursor` of the page before.")]


@post("/", security=BEARER, responses=refusals(403, 404, 409, body=True))
async def create(
    caller: SignedIn, services: SharedServices, data: JSONBody[NewApiKey]
) -> Response[Answer[ApiKeyWithSecret]]:
    """Make an API key in your name, for the gateway only. Its `secret` is in this answer and in no other.

    It can never do more than you can. A repeated request makes another key.
    """
    made = await make_key(caller.db, services.keys, data)
    return Response(Answer(data=made), status_code=201, headers={"location": f"/v1/keys/{made.id}"})


@get("/", security=BEARER, responses=refusals(404))
async def list_some(
    caller: SignedIn, workspace_id: OfWorkspace = None, limit: Limit = 20, cursor: Cursor = None
) -> Listing[ApiKey]:
    """Your keys, oldest first, also those that have ended; or those of a workspace that you may see."""
    page = Page(limit=limit, cursor=cursor, count_exactly=False)
    rows = await list_keys(caller.db, workspace_id=workspace_id, after=page.after(_LIST), max_rows=limit + 1)
    if not rows and workspace_id is not None:
        await get_workspace(caller.db, workspace_id)
    shown, next_cursor = cut_page(rows, page, _LIST, lambda row: Position(row.created_at, row.id))
    return Listing(data=shown, meta=PageMeta(next_cursor=next_cursor))


@get("/{key_id:uuid}", security=BEARER, responses=refusals(404))
async def get_one(caller: SignedIn, key_id: FromPath[UUID]) -> Answer[ApiKey]:
    """One key: yours, or of a workspace that you own or administer."""
    return Answer(data=await get_key(caller.db, key_id))


@patch("/{key_id:uuid}", security=BEARER, responses=refusals(403, 404, body=True))
async def patch_one(caller: SignedIn, key_id: FromPath[UUID], data: JSONBody[ApiKeyPatch]) -> Answer[ApiKey]:
    """Rename your key, or set its limits; those of a workspace's key are raised by its owners and admins only."""
    return Answer(data=await change_key(caller.db, key_id, data))


@delete("/{key_id:uuid}", security=BEARER, responses=refusals(404))
async def revoke(caller: SignedIn, key_id: FromPath[UUID]) -> None:
    """End the key for good, everywhere within a second. Its person may, and the workspace's owners and admins."""
    await revoke_key(caller.db, key_id)


@post("/{key_id:uuid}/rotate", status_code=200, security=BEARER, responses=refusals(403, 404, 409, body=True))
async def rotate(
    caller: SignedIn, services: SharedServices, key_id: FromPath[UUID], data: JSONBody[Rotation]
) -> Answer[ApiKeyWithSecret]:
    """Give your key a new secret, shown this once; those before it go on working for `overlap_s` seconds."""
    return Answer(data=await renew_secret(caller.db, services.keys, key_id, data))


ROUTER = Router("/keys", route_handlers=[create, list_some, get_one, patch_one, revoke, rotate], tags=["keys"])
