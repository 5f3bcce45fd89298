"""/v1/limits."""

from typing import Annotated
from uuid import UUID

from litestar import Router, get
from litestar.params import QueryParameter

from api.http.caller import SignedIn
from api.http.envelope import Listing
from api.http.openapi import BEARER, refusals
from api.limits.models import SubjectLimits
from api.limits.queries import report_limits
from core.errors import InvalidInput

OfKey = Annotated[UUID | None, QueryParameter(description="Only those of this key.")]
OfWorkspace = Annotated[UUID | None, QueryParameter(description="Only those of this workspace; any member may ask.")]


@get("/", security=BEARER, responses=refusals(404))
async def get_limits(
    caller: SignedIn, key_id: OfKey = None, workspace_id: OfWorkspace = None
) -> Listing[SubjectLimits]:
    """Your limits and those of your keys, how far each is used, and when it is whole again."""
    if key_id is not None and workspace_id is not None:
        raise InvalidInput("Ask for a key or for a workspace, not for both.", code="invalid_parameter")
    return Listing(data=await report_limits(caller.db, key_id=key_id, workspace_id=workspace_id))


ROUTER = Router("/limits", route_handlers=[get_limits], tags=["limits"])
