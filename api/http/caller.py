"""Who is asking. Every route asks, unless it says `opt={"public": True}`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from postgrest import AsyncPostgrestClient

from api.http.body import StrictRequest
from api.supabase.postgrest import bind_caller
from core.errors import NotAuthenticated
from core.tokens import Claims, bearer_token
from llm_gateway import is_key

if TYPE_CHECKING:  # services are made of features, and features ask for the caller
    from api.services import Services


@dataclass(frozen=True, slots=True)
class Caller:
    """A signed-in person and their own door into the database. The token is as good as a password: never log it."""

    claims: Claims
    access_token: str = field(repr=False)
    db: AsyncPostgrestClient = field(repr=False)


class ApiKeyNotAccepted(NotAuthenticated):
    """A program's key at a person's door, true or not."""

    default_code = "api_key_not_accepted"
    default_message = "API keys open the gateway only (/llm). Sign in, and send an access token here."


SignedIn = NamedDependency[Caller]
"""`caller: SignedIn` in a handler's parameters: whoever asks."""

PUBLIC = {"public": True}
"""`opt=PUBLIC` on a route: anybody may call it."""


async def require_caller(connection: ASGIConnection, handler: BaseRouteHandler) -> None:  # type: ignore[type-arg]
    """The connection's state has the caller, before a byte of the body is read.

    Raises: NotAuthenticated; Unavailable when the keys could never be fetched.
    """
    if handler.opt.get("public"):
        return
    services: Services = connection.app.state.services
    token = bearer_token(connection.headers.get("authorization"))
    if is_key(token):
        raise ApiKeyNotAccepted
    claims = await services.tokens.verify(token)
    connection.state.caller = Caller(claims, token, bind_caller(services.settings, services.http, token))


def provide_caller(request: StrictRequest) -> Caller:
    """The caller that `require_caller` found."""
    caller = request.state.caller
    if not isinstance(caller, Caller):
        raise AssertionError("a public route must not ask for the caller")  # noqa: TRY004 a mistake of ours, not of a type
    return caller
