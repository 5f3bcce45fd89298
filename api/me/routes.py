"""/v1/me: the caller's own profile."""

from litestar import Router, get, patch
from litestar.params import JSONBody

from api.http.caller import Caller, SignedIn
from api.http.envelope import Answer
from api.http.openapi import BEARER, refusals
from api.me.models import Me, MePatch
from api.me.queries import ProfileRow, fetch_profile, rename_profile
from core.errors import NotAuthenticated


@get("/", security=BEARER, responses=refusals())
async def get_me(caller: SignedIn) -> Answer[Me]:
    """Your profile."""
    return _me(caller, await fetch_profile(caller.db, caller.claims.user_id))


@patch("/", security=BEARER, responses=refusals(body=True))
async def patch_me(caller: SignedIn, data: JSONBody[MePatch]) -> Answer[Me]:
    """Change your profile."""
    return _me(caller, await rename_profile(caller.db, caller.claims.user_id, data.display_name))


def _me(caller: Caller, row: ProfileRow | None) -> Answer[Me]:
    if row is None:  # a true token of a person who has been deleted since
        raise NotAuthenticated("This account does not exist any more.", code="account_gone")
    return Answer(data=Me(email=caller.claims.email, **row.model_dump()))


ROUTER = Router("/me", route_handlers=[get_me, patch_me], tags=["me"])
