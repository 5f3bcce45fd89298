"""The public keys that sign access tokens: fetched, kept, rotated, and never fetched more often than they should be."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from jose import jwk
from jose.exceptions import JOSEError

from core.errors import InvalidInput, Unavailable
from core.json_input import decode_json
from core.logging import get_logger

log = get_logger(__name__)

FRESH_FOR_S: Final = 600.0  # Supabase's edge caches the set for ten minutes too
STALE_FOR_S: Final = 3600.0  # beyond freshness, while the issuer cannot be reached
REFETCH_PAUSE_S: Final = 30.0  # between two fetches that a stranger's token or an outage could cause
RETRY_PAUSE_S: Final = 1.0  # between two attempts while there is no usable key at all
FETCH_TIMEOUT_S: Final = 3.0
SLOW_FETCH_S: Final = 1.0  # after which a known key is used although it could be newer
MAX_SET_BYTES: Final = 64 * 1024
MAX_KEYS: Final = 32
MIN_RSA_BITS: Final = 2048

FetchJwks = Callable[[], Awaitable[bytes]]

_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.:=+-]{1,128}")
_ALGORITHM_OF: Final = {"EC": "ES256", "RSA": "RS256"}


class JwksUnusable(Exception):
    """The issuer's key set could not be fetched, or is not one."""


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key and the only algorithm that it verifies; `fingerprint` tells whether two sets hold the same key."""

    algorithm: str
    verify: Callable[[bytes, bytes], bool]
    fingerprint: tuple[str, ...]


def is_key_id(value: object) -> bool:
    """Whether `value` may be a `kid` at all; anything else is refused before any lookup."""
    return isinstance(value, str) and _KEY_ID.fullmatch(value) is not None


def parse_key_set(raw: bytes) -> dict[str, TrustedKey]:
    """The ES256 and RS256 signing keys of a JWK set by `kid`; every other key in it is left out.

    Left out too: keys that share a `kid`, weak RSA keys, symmetric keys, and private keys that somebody published.
    Raises: JwksUnusable when `raw` is no JWK set or a far too large one. Source: RFC 7517, RFC 7518.
    """
    try:
        document = decode_json(raw, max_depth=8)
    except InvalidInput as error:
        raise JwksUnusable("the key set is not JSON") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise JwksUnusable("the key set has no usable list of keys")
    candidates = [entry for entry in entries if isinstance(entry, dict) and _is_signing_key(entry)]
    uses = Counter(entry["kid"] for entry in candidates)
    keys = {}
    for entry in candidates:
        key = _construct(entry) if uses[entry["kid"]] == 1 else None
        if key is not None:
            keys[entry["kid"]] = key
    return keys


def _is_signing_key(entry: Mapping[str, object]) -> bool:
    algorithm = _ALGORITHM_OF.get(str(entry.get("kty")))
    operations = entry.get("key_ops", ["verify"])
    return (
        is_key_id(entry.get("kid"))
        and algorithm is not None
        and entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and "d" not in entry
        and (algorithm == "RS256" or entry.get("crv") == "P-256")
    )


def _construct(entry: Mapping[str, Any]) -> TrustedKey | None:  # the values are checked by jose as it parses them
    algorithm = _ALGORITHM_OF[entry["kty"]]
    members = ("x", "y") if algorithm == "ES256" else ("n", "e")
    try:
        if algorithm == "RS256" and len(base64.urlsafe_b64decode(entry["n"] + "==")) * 8 < MIN_RSA_BITS:
            return None
        key = jwk.construct(dict(entry), algorithm)
    except (JOSEError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return TrustedKey(algorithm, key.verify, (algorithm, *(str(entry[name]) for name in members)))


class SharedSecret:
    """The one HS256 key of an issuer that shares its secret; a `kid` means nothing here."""

    algorithms = frozenset({"HS256"})

    def __init__(self, secret: str) -> None:
        self._key = TrustedKey("HS256", jwk.construct(secret, "HS256").verify, ("HS256",))

    async def find(self, _key_id: str | None) -> TrustedKey | None:
        return self._key


class KeySet:
    """The issuer's keys. At most one fetch runs at any time, and its failure leaves the keys that are known in use.

    Fetched again after ten minutes, and for a `kid` nobody knows, the latter at most twice a minute. While the issuer
    cannot be reached the known keys serve for an hour more. `on_change` is called after a key came or went.
    """

    algorithms = frozenset(_ALGORITHM_OF.values())

    def __init__(
        self,
        fetch: FetchJwks,
        *,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._on_change = on_change
        self._clock = clock
        self._keys: dict[str, TrustedKey] = {}
        self._fetched_at_s: float | None = None
        self._attempted_at_s: float | None = None
        self._flight: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> TrustedKey | None:
        """The key with this id, or None without an id, and for one that the issuer does not know.

        Raises: Unavailable when there are no keys, or only ones too old to trust, and the issuer cannot be reached.
        """
        if key_id is None:
            return None
        if not self._is_fresh():
            await self._refresh(pause_s=REFETCH_PAUSE_S if self._is_usable() else RETRY_PAUSE_S)
            if not self._is_usable():
                raise Unavailable(
                    "Access tokens cannot be checked right now. Retry shortly.",
                    code="auth_unavailable",
                    retry_after_s=2.0,
                )
        key = self._keys.get(key_id)
        if key is None:
            await self._refresh(pause_s=REFETCH_PAUSE_S)
            key = self._keys.get(key_id)
        return key

    def _is_fresh(self) -> bool:
        return self._fetched_at_s is not None and self._clock() - self._fetched_at_s < FRESH_FOR_S

    def _is_usable(self) -> bool:
        return self._fetched_at_s is not None and self._clock() - self._fetched_at_s < FRESH_FOR_S + STALE_FOR_S

    async def _refresh(self, *, pause_s: float) -> None:
        """The running fetch has ended, or a new one has, unless the last one began less than `pause_s` ago."""
        if self._flight is None:
            now = self._clock()
            if self._attempted_at_s is not None and now - self._attempted_at_s < pause_s:
                return
            self._attempted_at_s = now
            self._flight = asyncio.create_task(self._fetch_once(), name="fetch signing keys")
        # Unlike awaiting it, this leaves the fetch running for the others when its caller hangs up; and where keys are
        # known, a slow issuer costs a second, not a failure.
        flight = self._flight
        done, _ = await asyncio.wait({flight}, timeout=SLOW_FETCH_S if self._is_usable() else None)
        for finished in done:
            finished.result()

    async def _fetch_once(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = parse_key_set(await self._fetch())
        except (JwksUnusable, TimeoutError) as error:
            log.warning(
                "signing_keys_not_fetched", reason=str(error) or type(error).__name__, known_keys=len(self._keys)
            )
            return
        finally:
            self._flight = None
        changed = {i: k.fingerprint for i, k in keys.items()} != {i: k.fingerprint for i, k in self._keys.items()}
        self._keys = keys
        self._fetched_at_s = self._clock()
        if changed:
            self._on_change()
            log.info("signing_keys_changed", key_ids=sorted(keys))


def http_fetcher(http: httpx.AsyncClient, url: str) -> FetchJwks:
    """A function that fetches the key set: no redirects, an answer of at most 64 KiB; it raises JwksUnusable only."""

    async def fetch() -> bytes:
        try:
            async with http.stream("GET", url, follow_redirects=False, timeout=FETCH_TIMEOUT_S) as response:
                if response.status_code != 200:
                    raise JwksUnusable(f"the issuer answered {response.status_code}")
                raw = bytearray()
                async for chunk in response.aiter_bytes():
                    raw += chunk
                    if len(raw) > MAX_SET_BYTES:
                        raise JwksUnusable("the key set is too large")
                return bytes(raw)
        except httpx.HTTPError as error:
            raise JwksUnusable(f"the issuer cannot be reached ({type(error).__name__})") from error

    return fetch
