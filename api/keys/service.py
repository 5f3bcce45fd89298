"""The rules of API keys that are not Postgres' own: secrets are made here, and shown once."""

from uuid import UUID

from postgrest import AsyncPostgrestClient

from api.keys.models import ApiKey, ApiKeyPatch, ApiKeyWithSecret, NewApiKey, Rotation
from api.keys.queries import create_key, fetch_key, rotate_key, update_key
from core.errors import NotFound
from llm_gateway import KeyRing


class KeyNotFound(NotFound):
    """It does not exist, or it is none of the caller's business: the same answer."""

    default_code = "key_not_found"
    default_message = "There is no API key with this id."


async def get_key(db: AsyncPostgrestClient, key_id: UUID) -> ApiKey:
    """The key. Raises: KeyNotFound."""
    key = await fetch_key(db, key_id)
    if key is None:
        raise KeyNotFound
    return key


async def make_key(db: AsyncPostgrestClient, ring: KeyRing, wanted: NewApiKey) -> ApiKeyWithSecret:
    """A new key of the caller, with the secret that nobody will see again."""
    made = ring.make()
    key = await create_key(db, made, wanted.model_dump(mode="json", exclude_unset=True))
    return ApiKeyWithSecret(**key.model_dump(), secret=made.secret)


async def change_key(db: AsyncPostgrestClient, key_id: UUID, patch: ApiKeyPatch) -> ApiKey:
    """The key with what the patch names changed. Raises: KeyNotFound, and what api.update_api_key refuses with."""
    changes = patch.model_dump(mode="json", exclude_unset=True)
    return await update_key(db, key_id, changes) if changes else await get_key(db, key_id)


async def renew_secret(db: AsyncPostgrestClient, ring: KeyRing, key_id: UUID, wanted: Rotation) -> ApiKeyWithSecret:
    """The key's new secret has taken over; those before it end after the overlap."""
    made = ring.make()
    key = await rotate_key(db, key_id, made, overlap_s=wanted.overlap_s)
    return ApiKeyWithSecret(**key.model_dump(), secret=made.secret)
