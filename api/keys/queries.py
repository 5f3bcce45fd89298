"""The functions of api that keep API keys, as the caller."""

from typing import cast
from uuid import UUID

from postgrest import AsyncPostgrestClient

from api.http.pagination import Position
from api.keys.models import ApiKey
from api.supabase.postgrest import parse_rows, run
from llm_gateway import NewKey


async def list_keys(
    db: AsyncPostgrestClient, *, workspace_id: UUID | None, after: Position | None, max_rows: int
) -> list[ApiKey]:
    """At most `max_rows` keys, oldest first, after the position: one's own, or what one may see of a workspace's."""
    return await _call(
        db,
        "list_api_keys",
        workspace_id=workspace_id and str(workspace_id),
        page_size=max_rows,
        after_created_at=after and after.created_at.isoformat(),
        after_id=after and str(after.row_id),
    )


async def fetch_key(db: AsyncPostgrestClient, key_id: UUID) -> ApiKey | None:
    """The key, if the caller may see it."""
    rows = await _call(db, "list_api_keys", key_id=str(key_id))
    return rows[0] if rows else None


async def create_key(db: AsyncPostgrestClient, made: NewKey, wanted: dict[str, object]) -> ApiKey:
    """The key is known by the digest of its secret. Raises: what api.create_api_key refuses with."""
    [key] = await _call(db, "create_api_key", secret_hmac=made.digest.hex(), secret_hint=made.hint, **wanted)
    return key


async def update_key(db: AsyncPostgrestClient, key_id: UUID, changes: dict[str, object]) -> ApiKey:
    """The key as it is now. changes: `name`, `limits`. Raises: what api.update_api_key refuses with."""
    [key] = await _call(db, "update_api_key", key_id=str(key_id), **changes)
    return key


async def rotate_key(db: AsyncPostgrestClient, key_id: UUID, made: NewKey, *, overlap_s: int) -> ApiKey:
    """The key has a new secret. Raises: what api.rotate_api_key refuses with."""
    [key] = await _call(
        db,
        "rotate_api_key",
        key_id=str(key_id),
        secret_hmac=made.digest.hex(),
        secret_hint=made.hint,
        overlap_s=overlap_s,
    )
    return key


async def revoke_key(db: AsyncPostgrestClient, key_id: UUID) -> None:
    """The key has ended. Raises: what api.revoke_api_key refuses with."""
    await run(db.rpc("revoke_api_key", {"key_id": str(key_id)}))


async def _call(db: AsyncPostgrestClient, function: str, **arguments: object) -> list[ApiKey]:
    # the client's type knows text only; it sends any JSON
    given = cast("dict[str, str]", {name: value for name, value in arguments.items() if value is not None})
    return parse_rows((await run(db.rpc(function, given))).body, ApiKey)
