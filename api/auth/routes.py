"""/v1/auth: accounts and sessions."""

from typing import Annotated, Any, Literal

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from api.auth.models import Credentials, CurrentSession, NewAccount, RefreshRequest, Session, SignedUp
from api.auth.service import SignInGuards, current_session
from api.auth.service import sign_in as sign_in_once
from api.auth.service import sign_up as sign_up_once
from api.http.caller import PUBLIC, SignedIn
from api.http.client_address import client_address
from api.http.envelope import Answer
from api.http.openapi import BEARER, refusals
from api.supabase.auth import SupabaseAuth

Auth = NamedDependency[SupabaseAuth]
Guards = NamedDependency[SignInGuards]
# Not `scope`: Litestar would hand over the ASGI scope under that name.
SignOutScope = Annotated[
    Literal["local", "others", "global"], QueryParameter(name="scope", description="Which sessions end.")
]


def _client_ip(request: Request[Any, Any, Any], auth: SupabaseAuth) -> str:  # Any: Litestar's slots
    return client_address(request, auth.settings.trusted_proxies)


@post("/sign-up", status_code=201, opt=PUBLIC, responses=refusals(403, 409, 429, body=True, public=True))
async def sign_up(
    request: Request[Any, Any, Any], data: JSONBody[NewAccount], supabase_auth: Auth
) -> Response[Answer[SignedUp]]:
    """Make an account; signed in at once, unless e-mail addresses have to be confirmed."""
    done = await sign_up_once(supabase_auth, data, client_ip=_client_ip(request, supabase_auth))
    return Response(Answer(data=done), status_code=201, headers={"location": "/v1/me"})


@post("/sign-in", status_code=200, opt=PUBLIC, responses=refusals(401, 403, 429, body=True, public=True))
async def sign_in(
    request: Request[Any, Any, Any],
    data: JSONBody[Credentials],
    supabase_auth: Auth,
    sign_in_guards: Guards,
) -> Answer[Session]:
    """Sign in with e-mail address and password."""
    return Answer(
        data=await sign_in_once(supabase_auth, sign_in_guards, data, client_ip=_client_ip(request, supabase_auth))
    )


@post("/refresh", status_code=200, opt=PUBLIC, responses=refusals(401, 403, 429, body=True, public=True))
async def refresh(
    request: Request[Any, Any, Any], data: JSONBody[RefreshRequest], supabase_auth: Auth
) -> Answer[Session]:
    """Go on with new tokens; the refresh token is spent."""
    session = await supabase_auth.refresh(data.refresh_token, client_ip=_client_ip(request, supabase_auth))
    return Answer(data=Session.from_auth(session))


@post("/sign-out", status_code=204, security=BEARER, responses=refusals(429))
async def sign_out(
    caller: SignedIn,
    supabase_auth: Auth,
    sign_out_scope: SignOutScope = "local",
) -> None:
    """End this session (`local`), your other ones (`others`), or all (`global`)."""
    await supabase_auth.sign_out(caller.access_token, scope=sign_out_scope)


@get("/session", security=BEARER, responses=refusals(429))
async def get_session(caller: SignedIn, supabase_auth: Auth) -> Answer[CurrentSession]:
    """The session behind your token, confirmed by Auth: 401 once it has been signed out."""
    return Answer(data=await current_session(supabase_auth, caller))


ROUTER = Router("/auth", route_handlers=[sign_up, sign_in, refresh, sign_out, get_session], tags=["auth"])
