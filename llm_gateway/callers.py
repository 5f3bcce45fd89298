"""Who is calling, and what they may ask for: by an access token or an API key, sent the way the SDKs send theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from core.errors import ButtressError, InvalidInput, NotAllowed, NotAuthenticated
from core.tokens import TokenVerifier, bearer_token
from llm_gateway.caller import Caller
from llm_gateway.directory import Directory, Question
from llm_gateway.keys import KeyRing, is_key

WORKSPACE_HEADER: Final = "x-buttress-workspace"

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class ApiKeyInvalid(NotAuthenticated):
    """Nobody has this key: never made, mistyped, or gone with its person or workspace."""

    default_code = "api_key_invalid"
    default_message = "This API key is not valid."


# Why the directory does not let somebody in. Whoever holds a key may know what became of it.
_REFUSALS: Final[Mapping[str, Callable[[], ButtressError]]] = {
    "unknown_key": ApiKeyInvalid,
    "revoked_key": lambda: ApiKeyInvalid("This API key has been revoked.", code="api_key_revoked"),
    "expired_key": lambda: ApiKeyInvalid("This API key has expired.", code="api_key_expired"),
    "rotated_key": lambda: ApiKeyInvalid(
        "This API key has been rotated: its new secret has taken over from this one.", code="api_key_rotated"
    ),
    "unknown_user": lambda: NotAuthenticated("This account does not exist any more.", code="user_not_found"),
    "suspended_user": lambda: NotAllowed("This account is suspended.", code="account_suspended"),
    "not_a_member": lambda: NotAllowed("You are not a member of this workspace.", code="not_a_member"),
    "viewer": lambda: NotAllowed("Viewers cannot make calls in this workspace.", code="not_allowed"),
}


class Callers:
    """Everybody who may call, found by the credential they send."""

    def __init__(self, tokens: TokenVerifier, keys: KeyRing, directory: Directory) -> None:
        self._tokens = tokens
        self._keys = keys
        self._directory = directory

    async def identify(self, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller that the headers (names in lower case) prove, by `authorization: Bearer` or `x-api-key`.

        An access token may name a workspace in `x-buttress-workspace`; an API key has its own, or none.
        Raises: NotAuthenticated; NotAllowed for somebody else's workspace; InvalidInput for one that cannot be;
        Unavailable, never NotAuthenticated, when there is nobody to ask.
        """
        credential = credential_of(headers)
        workspace_id = _workspace_of(headers)
        if not is_key(credential):
            claims = await self._tokens.verify(credential)
            return await self._find(Question(user_id=claims.user_id, workspace_id=workspace_id))
        digest = self._keys.recognise(credential)
        if digest is None:
            raise ApiKeyInvalid
        caller = await self._find(Question(key_digest=digest))
        if workspace_id not in (None, caller.workspace_id):
            raise NotAllowed(f"This API key is not of the workspace that {WORKSPACE_HEADER} names.")
        return caller

    async def _find(self, question: Question) -> Caller:
        entry = await self._directory.find(question)
        if entry.caller is None:
            raise _REFUSALS[entry.verdict]()
        return entry.caller


def credential_of(headers: Mapping[bytes, bytes]) -> str:
    """The one credential that the headers carry. Raises: NotAuthenticated where there is none, or two that differ."""
    key, authorization = headers.get(b"x-api-key"), headers.get(b"authorization")
    if not key:
        return bearer_token(None if authorization is None else authorization.decode("latin-1"))
    credential = bearer_token("Bearer " + key.decode("latin-1"))
    if authorization and bearer_token(authorization.decode("latin-1")) != credential:
        raise NotAuthenticated(
            "`x-api-key` and `Authorization` carry different credentials. Send one.", code="token_invalid"
        )
    return credential


def _workspace_of(headers: Mapping[bytes, bytes]) -> UUID | None:
    """The workspace the caller names, if any. Raises: InvalidInput for what cannot be a workspace's id."""
    value = headers.get(WORKSPACE_HEADER.encode(), b"").decode("latin-1")
    if not value:
        return None
    if _UUID.fullmatch(value) is None:
        raise InvalidInput(f"{WORKSPACE_HEADER} takes the id of a workspace.", code="invalid_workspace")
    return UUID(value)
