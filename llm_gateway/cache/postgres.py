"""The cache in PostgreSQL. It may know nothing, be slow or be gone: then a call is made as if there were none."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import ButtressError
from core.logging import get_logger
from core.postgres import ServicePool, fetch, within
from llm_gateway.cache.key import CacheKey
from llm_gateway.metrics import Metrics

log = get_logger(__name__)

# Nobody waits longer than this part of the database's deadline for an answer that may not even be there.
_FIND_WITHIN: Final = 0.25
# After two failures in a row nobody asks for so long: each would have waited in vain.
REST_S: Final = 5.0
_FAILURES_BEFORE_REST: Final = 2
# Answers that wait to be stored are memory; past so many the next ones are given up.
MOST_STORING: Final = 32

_NONCE_BYTES: Final = 12
_FIND: Final = "select gateway.find_cached($1, $2, $3)"
_STORE: Final = "select gateway.store_cached($1, $2, $3, $4)"
_SWEEP: Final = "select gateway.sweep_cache()"


class PostgresCache:
    """Answers through `pool`, whose login is gateway_service and which nothing else needs. No method fails."""

    def __init__(self, pool: ServicePool, metrics: Metrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._rests_until_s = 0.0
        self._failures = 0
        self._storing = 0

    async def find(self, key: CacheKey, *, max_age_s: int) -> bytes | None:
        """The answer that the tenant was given for the same request no longer ago than this; None without one."""
        within_s = self._pool.deadline_s * _FIND_WITHIN
        sealed = await self._ask(_FIND, (key.place, key.tenant_id, max_age_s * 1000), within_s)
        answer = _opened(key, sealed) if isinstance(sealed, bytes) else None
        self._metrics.cached("miss" if answer is None else "hit")
        return answer

    async def store(self, key: CacheKey, answer: bytes, *, ttl_s: int) -> None:
        """The answer is kept for so long, if there is room for it."""
        if self._storing >= MOST_STORING:
            return
        self._storing += 1
        try:
            sealed = _sealed(key, answer)
            if await self._ask(_STORE, (key.place, key.tenant_id, ttl_s * 1000, sealed), self._pool.unhurried_s):
                self._metrics.cached("stored")
        finally:
            self._storing -= 1

    async def sweep(self) -> None:
        """What has expired is gone, and the oldest where there is too much."""
        await self._ask(_SWEEP, (), self._pool.unhurried_s)

    async def _ask(self, query: str, arguments: tuple[object, ...], within_s: float) -> object:
        """What the function answers; None when it does not, which is logged once for each rest."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._rests_until_s:
            self._metrics.cached("unavailable")
            return None
        try:
            [row] = await within(within_s, fetch(self._pool, query, *arguments))
        except TimeoutError:
            reason: object = "slow"
        except ButtressError as error:
            reason = error.__cause__ or error
        else:
            self._failures = 0
            answer: object = row[0]
            return answer
        self._metrics.cached("unavailable")
        self._failures += 1
        if self._failures >= _FAILURES_BEFORE_REST:
            self._rests_until_s = loop.time() + REST_S
            log.warning("cache_unavailable", reason=str(reason) or type(reason).__name__, rests_s=REST_S)
        return None


def _sealed(key: CacheKey, answer: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key.secret).encrypt(nonce, answer, key.tenant_id.bytes)


def _opened(key: CacheKey, sealed: bytes) -> bytes | None:
    """The answer; None where somebody changed the row."""
    try:
        return AESGCM(key.secret).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key.tenant_id.bytes)
    except InvalidTag:
        log.warning("cached_answer_was_changed")
        return None
