"""Who is calling: a Supabase access token, sent the way OpenAI's SDK sends its API key."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from core.tokens import TokenVerifier, bearer_token


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose limits a call is charged to. `workspace_id` is None until the caller names one."""

    user_id: UUID
    workspace_id: UUID | None = None


async def identify(tokens: TokenVerifier, authorization: str | None) -> Caller:
    """The caller that the header proves.

    Raises: NotAuthenticated; Unavailable when the keys to check the token with could never be fetched.
    """
    claims = await tokens.verify(bearer_token(authorization))
    return Caller(user_id=claims.user_id)
