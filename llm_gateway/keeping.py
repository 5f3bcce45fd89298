"""What outlives a call of its content: an answer where the call wanted it cached, all where its workspace wants it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import orjson

from llm_gateway.cache.answers import MAX_ANSWER_BYTES, is_final, may_be_cached
from llm_gateway.cache.key import CacheKey, CacheKeys
from llm_gateway.cache.postgres import PostgresCache
from llm_gateway.cache.wish import HEADER, wished_age_s
from llm_gateway.caller import Caller
from llm_gateway.catalog import PublicModel
from llm_gateway.client import Client
from llm_gateway.content.store import PostgresContents, StoredCall
from llm_gateway.settlement import DetachedTasks
from llm_gateway.wire.format import FormatRequest

_STATE: Final = b"x-buttress-cache"


@dataclass(slots=True)
class Kept:
    """One call's answer as the client gets it, remembered only if somebody will want it.

    `max_age_s`: how old an answer given before may be, and how long a new one is kept; None: every answer is new.
    """

    max_age_s: int | None = None
    wants_content: bool = False
    key: CacheKey | None = None
    hit: bytes | None = None  # the answer as it was given before
    is_cut: bool = False
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0

    def passed(self, piece: bytes) -> None:
        """The client was given this."""
        if self.is_cut or not (self.wants_content or (self.key is not None and self.hit is None)):
            return
        self._size += len(piece)
        if self._size > MAX_ANSWER_BYTES:
            self.is_cut = True
        else:
            self._pieces.append(piece)

    def answer(self) -> bytes:
        """All of it, or its beginning where it was cut."""
        return b"".join(self._pieces)


class Keeper:
    """Finds answers before calls and keeps them afterwards. Without a cache or a store it does nothing of that."""

    def __init__(
        self, tasks: DetachedTasks, keys: CacheKeys, cache: PostgresCache | None, contents: PostgresContents | None
    ) -> None:
        self._tasks = tasks
        self._keys = keys
        self._cache = cache
        self._contents = contents

    def wishes(self, client: Client, caller: Caller, model: PublicModel) -> Kept:
        """What the call wants of us. Raises: InvalidInput for a header that says nothing we know."""
        wants_content = caller.policy.store_content and caller.workspace_id is not None and self._contents is not None
        max_age_s = wished_age_s(client.header(HEADER), model.cache_ttl_s)
        return Kept(max_age_s=None if self._cache is None else max_age_s, wants_content=wants_content)

    async def look_up(self, kept: Kept, client: Client, caller: Caller, endpoint: str, request: FormatRequest) -> None:
        """`kept` has what was answered before, if the call wants that and there is such an answer."""
        if self._cache is None or kept.max_age_s is None or not may_be_cached(endpoint, request):
            return
        kept.key = self._keys.make(caller, endpoint, request)
        kept.hit = await self._cache.find(kept.key, max_age_s=kept.max_age_s)
        client.standing.append((_STATE, b"miss" if kept.hit is None else b"hit"))

    def keep(
        self, kept: Kept, *, call_id: str, caller: Caller, endpoint: str, request: FormatRequest, is_complete: bool
    ) -> None:
        """What is to outlive the call is being written. `is_complete`: nothing was cut, and nothing failed."""
        if kept.key is not None and kept.hit is None and is_complete and not kept.is_cut:
            self._tasks.start(self._cache_final(kept.key, kept, endpoint, request), name=f"cache {call_id}")
        if kept.wants_content and caller.workspace_id is not None and self._contents is not None:
            stored = StoredCall(
                workspace_id=caller.workspace_id,
                call_id=call_id,
                user_id=caller.user_id,
                endpoint=endpoint,
                model=request.model,
                is_stream=request.stream,
                request=orjson.dumps(request.body),
                answer=kept.answer(),
                answer_is_cut=kept.is_cut or not is_complete,
            )
            self._tasks.start(self._contents.store(stored), name=f"store {call_id}")

    async def _cache_final(self, key: CacheKey, kept: Kept, endpoint: str, request: FormatRequest) -> None:
        answer = kept.answer()
        if self._cache is not None and is_final(endpoint, stream=request.stream, raw=answer):
            await self._cache.store(key, answer, ttl_s=kept.max_age_s or 0)
