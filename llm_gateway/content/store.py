"""Requests and answers of the workspaces that chose to keep theirs, in PostgreSQL. Losing one changes no call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from core.errors import ButtressError, Unavailable
from core.logging import get_logger
from core.postgres import ServicePool, fetch, within

log = get_logger(__name__)

MAX_TEXT_BYTES: Final = 1024 * 1024

_STORE: Final = "select gateway.store_content($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_SWEEP: Final = "select gateway.sweep_contents()"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """One call as it is kept: what went to the provider, and what the caller got."""

    workspace_id: UUID
    call_id: str
    user_id: UUID
    endpoint: str
    model: str
    is_stream: bool
    request: bytes
    answer: bytes
    answer_is_cut: bool


class PostgresContents:
    """Keeps calls through `pool`, whose login is gateway_service. The database asks the workspace's settings again."""

    def __init__(self, pool: ServicePool) -> None:
        self._pool = pool

    async def store(self, call: StoredCall) -> None:
        """The call is kept if its workspace wants that at this moment; a failure is logged."""
        is_cut = call.answer_is_cut or max(len(call.request), len(call.answer)) > MAX_TEXT_BYTES
        try:
            await self._ask(
                _STORE,
                call.workspace_id,
                call.call_id,
                call.user_id,
                call.endpoint,
                call.model,
                call.is_stream,
                is_cut,
                _text(call.request),
                _text(call.answer),
            )
        except ButtressError as error:
            log.warning("content_not_stored", call_id=call.call_id, code=error.code)

    async def sweep(self) -> None:
        """What has been kept for long enough is gone. Raises: Unavailable."""
        await self._ask(_SWEEP)

    async def _ask(self, query: str, *arguments: object) -> None:
        try:
            await within(self._pool.unhurried_s, fetch(self._pool, query, *arguments))
        except TimeoutError as error:
            raise Unavailable from error


def _text(raw: bytes) -> str:
    """As much as is kept of it, as PostgreSQL takes texts: valid UTF-8 without NUL."""
    return raw[:MAX_TEXT_BYTES].decode("utf-8", "ignore").replace("\0", "")
