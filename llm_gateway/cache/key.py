"""What makes two calls the same: who is asking, what, and everything that decides what they may be answered."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import UUID

import orjson

from llm_gateway.caller import Caller
from llm_gateway.wire.format import FormatRequest

# Of everything that goes into a key: answers of another layout are not found any more.
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Where an answer is kept, whose it is, and what it is encrypted with. Neither can be had from the other."""

    tenant_id: UUID
    place: bytes
    secret: bytes


class CacheKeys:
    """Makes keys with this installation's pepper: without it, nobody can tell whether something was asked.

    `rules`: the names of the rules about content; an answer that went through others is another answer.
    """

    def __init__(self, pepper: str, rules: Sequence[str] = ()) -> None:
        self._rules = list(rules)
        self._place_key = hmac.digest(pepper.encode(), b"buttress response cache: place", sha256)
        self._secret_key = hmac.digest(pepper.encode(), b"buttress response cache: secret", sha256)

    def make(self, caller: Caller, endpoint: str, request: FormatRequest) -> CacheKey:
        """The key of this call. Whether it is streamed is a part of its body, and so of the key.

        The tenant is the workspace where the call is made in one, else the user; neither is ever the other's.
        """
        policy = caller.policy
        tenant_id = caller.workspace_id or caller.user_id
        canonical = orjson.dumps(
            {
                "version": _VERSION,
                "tenant": ["workspace" if caller.workspace_id else "user", str(tenant_id)],
                "endpoint": endpoint,
                "headers": dict(request.headers),
                "body": request.body,
                "models": None if policy.models is None else sorted(policy.models),
                "max_output_tokens": policy.max_output_tokens,
                "max_choices": policy.max_choices,
                "rules": self._rules,
                "redact": [policy.redact, policy.redact_answers],
            },
            option=orjson.OPT_SORT_KEYS,
        )
        return CacheKey(
            tenant_id=tenant_id,
            place=hmac.digest(self._place_key, canonical, sha256),
            secret=hmac.digest(self._secret_key, canonical, sha256),
        )
