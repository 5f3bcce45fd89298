"""Supabase Auth over plain HTTP: no client object that could remember whose session it last saw.

The one module that reads the secret key: with it, and only with it, Auth believes us about the caller's address,
and its own rate limits count people rather than this server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NoReturn, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import orjson
from pydantic import BaseModel, Field, SecretStr, ValidationError

from api.supabase.transport import transport_errors
from core.errors import (
    BadGateway,
    ButtressError,
    Conflict,
    NotAllowed,
    NotAuthenticated,
    TooManyRequests,
    Unavailable,
    Unprocessable,
)
from core.settings import Settings

T = TypeVar("T", bound=BaseModel)


class AuthUser(BaseModel):
    """A user as Auth sends it; fields we do not show are not read."""

    id: UUID
    email: str | None = None


class AuthSession(BaseModel):
    """Tokens as Auth sends them. Units: expires_in seconds, expires_at Unix seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    expires_at: int
    user: AuthUser


class InvalidCredentials(NotAuthenticated):
    """The same words for an unknown account and for a wrong password."""

    default_code = "invalid_credentials"
    default_message = "The e-mail address or the password is wrong."


class RefreshTokenInvalid(NotAuthenticated):
    """Used, expired, revoked or never ours: all the same to the caller."""

    default_code = "refresh_token_invalid"
    default_message = "This refresh token is not valid any more. Sign in again."


class SessionEnded(NotAuthenticated):
    """The token is true, its session has been signed out."""

    default_code = "session_ended"
    default_message = "This session has ended. Sign in again."


# Auth's stable error codes (supabase.com/docs/guides/auth/debugging/error-codes) and what our caller is told.
_REFUSALS: Final[dict[str, ButtressError]] = {
    "invalid_credentials": InvalidCredentials(),
    "email_not_confirmed": NotAllowed(
        "Confirm your e-mail address first: open the link we sent you.", code="email_not_confirmed"
    ),
    "user_banned": NotAllowed("This account is suspended.", code="account_suspended"),
    "user_already_exists": Conflict("There is an account with this e-mail address. Sign in.", code="email_taken"),
    "email_exists": Conflict("There is an account with this e-mail address. Sign in.", code="email_taken"),
    "signup_disabled": NotAllowed("New accounts are not accepted here.", code="sign_up_disabled"),
    "email_provider_disabled": NotAllowed("New accounts are not accepted here.", code="sign_up_disabled"),
    "weak_password": Unprocessable(
        "This password is too weak: make it longer, and mix letters with digits.", code="weak_password"
    ),
    "email_address_invalid": Unprocessable("This e-mail address is not accepted.", code="email_invalid"),
    "validation_failed": Unprocessable("Auth does not accept these values.", code="validation_failed"),
    "refresh_token_not_found": RefreshTokenInvalid(),
    "refresh_token_already_used": RefreshTokenInvalid(),
    "session_expired": SessionEnded(),
    "session_not_found": SessionEnded(),
    "user_not_found": SessionEnded(),
    "bad_jwt": SessionEnded(),
}
_RATE_LIMIT_PAUSE_S: Final = 60.0  # Auth names no time; its buckets refill within minutes


@dataclass(frozen=True, slots=True)
class SupabaseAuth:
    """The calls we make to Auth. Nothing is kept between two of them."""

    settings: Settings
    http: httpx.AsyncClient

    async def sign_up(
        self, email: str, password: SecretStr, *, display_name: str | None, client_ip: str
    ) -> AuthSession | None:
        """An account exists; None when the e-mail address has to be confirmed before there is a session.

        Raises: Conflict (email_taken, only where confirmation is off), Unprocessable, NotAllowed, TooManyRequests.
        """
        body: dict[str, object] = {"email": email, "password": password.get_secret_value()}
        if display_name is not None:
            body["data"] = {"display_name": display_name}
        response = await self._post("/signup", body, client_ip=client_ip)
        return _parse(AuthSession, response) if b'"access_token"' in response.content else None

    async def sign_in(self, email: str, password: SecretStr, *, client_ip: str) -> AuthSession:
        """A new session. Raises: InvalidCredentials, NotAllowed (email_not_confirmed), TooManyRequests."""
        body = {"email": email, "password": password.get_secret_value()}
        return _parse(AuthSession, await self._post("/token?grant_type=password", body, client_ip=client_ip))

    async def refresh(self, refresh_token: SecretStr, *, client_ip: str) -> AuthSession:
        """The session goes on with new tokens; the given one is spent. Raises: RefreshTokenInvalid."""
        body = {"refresh_token": refresh_token.get_secret_value()}
        try:
            response = await self._post("/token?grant_type=refresh_token", body, client_ip=client_ip)
        except (SessionEnded, Unprocessable, InvalidCredentials) as refusal:
            raise RefreshTokenInvalid from refusal
        return _parse(AuthSession, response)

    async def sign_out(self, access_token: str, *, scope: Literal["local", "others", "global"]) -> None:
        """The session, the user's other sessions, or all of them have ended; none of them can be refreshed."""
        try:
            await self._send("POST", f"/logout?scope={scope}", access_token=access_token)
        except SessionEnded:
            return  # that is what was asked for

    async def fetch_user(self, access_token: str) -> AuthUser:
        """The user of a session that has not been signed out, as Auth knows them now. Raises: SessionEnded."""
        return _parse(AuthUser, await self._send("GET", "/user", access_token=access_token))

    async def _post(self, path: str, body: Mapping[str, object], *, client_ip: str) -> httpx.Response:
        return await self._send("POST", path, body=body, client_ip=client_ip)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        access_token: str | None = None,
        client_ip: str | None = None,
    ) -> httpx.Response:
        with transport_errors():
            response = await self.http.request(
                method,
                f"{self.settings.supabase_url}/auth/v1{path}",
                content=None if body is None else orjson.dumps(body),
                headers=self._headers(has_body=body is not None, access_token=access_token, client_ip=client_ip),
            )
        if not response.is_success:
            _refuse(response)
        return response

    def _headers(self, *, has_body: bool, access_token: str | None, client_ip: str | None) -> dict[str, str]:
        headers = {
            "apikey": self.settings.supabase_publishable_key.get_secret_value(),
            "accept": "application/json",
        }
        if has_body:
            headers["content-type"] = "application/json"
        if access_token is not None:
            headers["authorization"] = f"Bearer {access_token}"
        elif client_ip is not None and self.settings.supabase_secret_key is not None:
            headers["apikey"] = self.settings.supabase_secret_key.get_secret_value()
            headers["sb-forwarded-for"] = quote(client_ip, safe=":.")
        return headers


class _AuthErrorBody(BaseModel):
    """Both shapes Auth uses: `code` is the HTTP status in the older one, the error code in the newer one."""

    error_code: str | None = None
    code: Annotated[str | int | None, Field(union_mode="left_to_right")] = None

    @property
    def stable_code(self) -> str:
        return self.error_code or (self.code if isinstance(self.code, str) else "")


def _refuse(response: httpx.Response) -> NoReturn:
    """Raises what our caller is told about Auth's refusal; its own sentence goes no further than the log."""
    cause = RuntimeError(f"Auth answered {response.status_code}: {response.text[:500]}")
    if response.status_code == 429:
        raise TooManyRequests(
            "Too many attempts. Wait a minute, then try again.", retry_after_s=_RATE_LIMIT_PAUSE_S
        ) from cause
    if response.status_code >= 500:
        raise Unavailable from cause
    try:
        code = _AuthErrorBody.model_validate_json(response.content).stable_code
    except ValidationError:
        code = ""
    known = _REFUSALS.get(code)
    if known is None:
        raise BadGateway from cause
    raise type(known)(known.message, code=known.code) from cause


def _parse(model: type[T], response: httpx.Response) -> T:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as cause:
        raise BadGateway from cause
