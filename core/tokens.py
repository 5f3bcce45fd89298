"""Who is asking: a Supabase access token, verified here, without asking anybody.

python-jose checks the signature, with a key built beforehand and the one algorithm that the key is trusted for. What it
is lax about (missing claims, numbers as strings, sloppy base64) is checked here instead: docs/decisions/0041.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from uuid import UUID

from core.errors import InvalidInput, NotAuthenticated
from core.json_input import decode_json
from core.jwks import FetchJwks, KeySet, SharedSecret, TrustedKey, http_fetcher, is_key_id

if TYPE_CHECKING:
    import httpx

    from core.settings import Settings

LEEWAY_S: Final = 10
MAX_TOKEN_CHARS: Final = 8192
CACHE_ENTRIES: Final = 10_000
CACHED_FOR_S: Final = 60.0  # also the longest time that a token outlives the removal of its key
USER_ROLE: Final = "authenticated"

_COMPACT_JWS: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# Headers that would change how a token is read or name a key of the sender's choice (RFC 7515 section 4.1, RFC 7797).
_REFUSED_HEADERS: Final = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc", "cty"})
_REQUIRED_CLAIMS: Final = ("exp", "aud", "sub", "iss", "role")
_LATEST_TIME: Final = 2**53
_USER_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says about its user. `role` is always `authenticated`; `expires_at` is Unix seconds.

    `aal` is `aal1`, or `aal2` after a second factor; `is_anonymous` users signed in without proving anything.
    """

    user_id: UUID
    email: str | None
    role: str
    session_id: str | None
    aal: str
    expires_at: float
    is_anonymous: bool = False


class _Refused(Exception):
    """Why a token is not accepted: for tests and debuggers, never shown to the sender."""


class TokenVerifier:
    """Tells true access tokens from all others, with a shared secret (HS256) or the issuer's key set (ES256, RS256).

    Which of the two is configuration; a token cannot choose. Verified tokens are remembered for a minute at most, by
    the digest of the whole token.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        jwt_secret: str | None = None,
        fetch_jwks: FetchJwks | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._verified: OrderedDict[bytes, tuple[float, Claims]] = OrderedDict()
        self._keys: KeySet | SharedSecret
        if jwt_secret is not None and fetch_jwks is None:
            self._keys = SharedSecret(jwt_secret)
        elif fetch_jwks is not None and jwt_secret is None:
            self._keys = KeySet(fetch_jwks, on_change=self._verified.clear, clock=monotonic)
        else:
            raise ValueError("exactly one of jwt_secret and fetch_jwks decides how tokens are signed")

    @classmethod
    def from_settings(cls, settings: Settings, http: httpx.AsyncClient) -> TokenVerifier:
        """A verifier for the configured issuer; key sets are fetched with `http`."""
        return cls(
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            jwt_secret=settings.jwt_secret.get_secret_value() if settings.jwt_secret else None,
            fetch_jwks=http_fetcher(http, settings.jwks_url) if settings.jwks_url else None,
        )

    async def verify(self, token: str) -> Claims:
        """The claims of a true token.

        Raises: NotAuthenticated (`token_missing`, `token_expired`, `token_invalid` for all else, without saying why);
        Unavailable when the issuer's keys could never be fetched, or too long ago.
        """
        if not token:
            raise NotAuthenticated(code="token_missing")
        if len(token) > MAX_TOKEN_CHARS or not token.isascii():
            raise _invalid_token()
        digest = sha256(token.encode()).digest()
        remembered = self._remembered(digest)
        if remembered is not None:
            return remembered
        try:
            claims = await self._verify(token)
        except (_Refused, InvalidInput) as reason:
            raise _invalid_token() from reason
        self._remember(digest, claims)
        return claims

    async def _verify(self, token: str) -> Claims:
        parts = _COMPACT_JWS.fullmatch(token)
        if parts is None:
            raise _Refused("not three base64url segments")
        header = _json_object(_decoded(parts[1]))
        key = await self._trusted_key(header)
        if header["alg"] != key.algorithm:
            raise _Refused("not the algorithm this key is trusted for")
        signing_input, _, _ = token.rpartition(".")
        if not key.verify(signing_input.encode(), _decoded(parts[3])):
            raise _Refused("wrong signature")
        return self._checked_claims(_json_object(_decoded(parts[2])))

    async def _trusted_key(self, header: dict[str, object]) -> TrustedKey:
        if not isinstance(header.get("alg"), str) or header.get("typ", "JWT") not in ("JWT", "jwt"):
            raise _Refused("no algorithm, or no JWT")
        if not _REFUSED_HEADERS.isdisjoint(header):
            raise _Refused("a header we do not follow")
        key_id = header.get("kid")
        if "kid" in header and not is_key_id(key_id):
            raise _Refused("not a key id")
        if header["alg"] not in self._keys.algorithms:
            raise _Refused("not an algorithm we use")  # before the lookup: such a token must not cause a fetch
        key = await self._keys.find(key_id if isinstance(key_id, str) else None)
        if key is None:
            raise _Refused("unknown key id")
        return key

    def _checked_claims(self, claims: dict[str, object]) -> Claims:
        for name in _REQUIRED_CLAIMS:
            if name not in claims:
                raise _Refused(f"no {name}")
        if claims["iss"] != self._issuer or claims["aud"] not in (self._audience, [self._audience]):
            raise _Refused("not for us, or not from our issuer")
        expires_at = self._checked_times(claims)
        if claims["role"] != USER_ROLE:
            raise _Refused("not a user: anon and service_role tokens are keys, they prove no person")
        subject = claims["sub"]
        if not isinstance(subject, str) or not _USER_ID.fullmatch(subject):
            raise _Refused("sub is not a user id")
        is_anonymous = claims.get("is_anonymous", False)
        if not isinstance(is_anonymous, bool):
            raise _Refused("is_anonymous is not a boolean")
        return Claims(
            user_id=UUID(subject),
            email=_optional_text(claims, "email") or None,
            role=USER_ROLE,
            session_id=_optional_text(claims, "session_id"),
            aal=_optional_text(claims, "aal") or "aal1",
            expires_at=float(expires_at),
            is_anonymous=is_anonymous,
        )

    def _checked_times(self, claims: dict[str, object]) -> int:
        """The token's expiry; it lies ahead, and `iat` and `nbf` do not, give or take the leeway."""
        now = self._clock()
        for name in ("iat", "nbf"):
            if name in claims and _unix_time(claims, name) > now + LEEWAY_S:
                raise _Refused(f"{name} lies ahead")
        expires_at = _unix_time(claims, "exp")
        if expires_at <= now - LEEWAY_S:
            raise NotAuthenticated("The access token has expired. Refresh it, then retry.", code="token_expired")
        return expires_at

    def _remembered(self, digest: bytes) -> Claims | None:
        entry = self._verified.get(digest)
        if entry is None:
            return None
        until_s, claims = entry
        if self._clock() >= until_s:
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return claims

    def _remember(self, digest: bytes, claims: Claims) -> None:
        self._verified[digest] = (min(claims.expires_at, self._clock() + CACHED_FOR_S), claims)
        if len(self._verified) > CACHE_ENTRIES:
            self._verified.popitem(last=False)


def bearer_token(authorization: str | None) -> str:
    """The token of an `Authorization: Bearer <token>` header.

    Raises: NotAuthenticated with `token_missing` without a header, `token_invalid` for any other scheme or shape.
    """
    if not authorization:
        raise NotAuthenticated(code="token_missing")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token or not token.isascii() or not token.isprintable() or " " in token:
        raise NotAuthenticated("The Authorization header must be `Bearer <token>`.", code="token_invalid")
    return token


def _invalid_token() -> NotAuthenticated:
    return NotAuthenticated("The access token is not valid. Sign in again.", code="token_invalid")


def _decoded(segment: str) -> bytes:
    """The bytes of a base64url segment in its one canonical spelling (RFC 7515 section 2: no padding)."""
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error as error:
        raise _Refused("not base64url") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != segment:
        raise _Refused("not canonical base64url")
    return raw


def _json_object(raw: bytes) -> dict[str, object]:
    value = decode_json(raw, max_depth=16)
    if not isinstance(value, dict):
        raise _Refused("not a JSON object")
    return value


def _unix_time(claims: dict[str, object], name: str) -> int:
    value = claims[name]
    if type(value) is not int or not 0 < value < _LATEST_TIME:  # a bool is an int, and is no time
        raise _Refused(f"{name} is not a whole number of seconds")
    return value


def _optional_text(claims: dict[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise _Refused(f"{name} is not a text")
    return value
