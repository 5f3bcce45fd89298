"""Who is asking: a Supabase access token, verified here, without asking anybody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from core.errors import NotAuthenticated

if TYPE_CHECKING:
    import httpx

    from core.settings import Settings


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says about its user. `expires_at` is Unix seconds; `role` is always `authenticated`."""

    user_id: UUID
    email: str | None
    role: str
    session_id: str | None
    aal: str
    expires_at: float
    is_anonymous: bool = False


FetchJwks = Callable[[], Awaitable[bytes]]


class TokenVerifier:
    """Tells true access tokens from all others."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwt_secret: str | None = None,
        fetch_jwks: FetchJwks | None = None,
    ) -> None:
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: Settings, http: httpx.AsyncClient) -> TokenVerifier:
        raise NotImplementedError

    async def verify(self, token: str) -> Claims:
        """The claims of a true token.

        Raises: NotAuthenticated (`token_missing`, `token_invalid`, `token_expired`); Unavailable when the keys could never be
        fetched.
        """
        raise NotImplementedError


def bearer_token(authorization: str | None) -> str:
    """The token of an `Authorization: Bearer <token>` header.

    Raises: NotAuthenticated with `token_missing` without a header, `token_invalid` for any other scheme or shape.
    """
    if not authorization:
        raise NotAuthenticated(code="token_missing")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token or " " in token:
        raise NotAuthenticated("The Authorization header must be `Bearer <token>`.", code="token_invalid")
    return token
