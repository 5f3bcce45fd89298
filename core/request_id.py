"""The id that joins an answer, its log lines, its ledger row and its call to a provider."""

from __future__ import annotations

import re
import secrets
import time
from contextvars import ContextVar
from typing import Final

HEADER: Final = "x-request-id"

# Characters that survive logs, shells, URLs and SQL unescaped; long enough for a UUID with a prefix.
_ACCEPTED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{7,63}")

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)


def new_request_id() -> str:
    """A new id: "req_" and 32 hex digits; ids sort by their millisecond (the layout of UUIDv7, RFC 9562)."""
    return f"req_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def accept_request_id(header: str | None) -> str:
    """The caller's own id where it is safe to repeat in logs and headers, a new one otherwise."""
    if header is not None and _ACCEPTED.fullmatch(header):
        return header
    return new_request_id()
