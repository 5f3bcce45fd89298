"""API keys for tests: real rows with real secrets, past the API, in a millisecond each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from llm_gateway.keys import KeyRing, NewKey
from tests.support.callers import Caller
from tests.support.stack import RunningStack


@dataclass(frozen=True)
class Key:
    """A key that opens the gateway until something is done to it."""

    id: UUID
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


def ring_of(stack: RunningStack) -> KeyRing:
    """Makes and knows the keys of this stack."""
    return KeyRing(stack.secrets.key_pepper)


async def new_key(
    stack: RunningStack,
    database: asyncpg.Connection,
    person: Caller,
    *,
    workspace_id: UUID | None = None,
    models: Sequence[str] | None = None,
    endpoints: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    made: NewKey | None = None,
) -> Key:
    """A key of the person, with these scopes. made: a secret of the test's own choice."""
    made = made or ring_of(stack).make()
    key_id = await database.fetchval(
        """
        insert into gateway.api_keys (user_id, workspace_id, name, models, endpoints, expires_at)
        values ($1, $2, 'Test', $3, $4, $5)
        returning id
        """,
        person.user_id,
        workspace_id,
        models,
        endpoints,
        expires_at,
    )
    await add_secret(database, key_id, made)
    return Key(key_id, made.secret)


async def add_secret(database: asyncpg.Connection, key_id: UUID, made: NewKey) -> None:
    """The key is known by this secret, too."""
    await database.execute(
        "insert into gateway.api_key_secrets (hmac, key_id, hint) values ($1, $2, $3)", made.digest, key_id, made.hint
    )
