"""What PostgREST and SQL functions complain about, in the words of our API."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import ButtressError, InternalFault


def error_from_postgrest(
    body: Mapping[str, object], *, status: int | None = None, authenticated: bool = True
) -> ButtressError:
    """Our error for a PostgREST error body (`code`, `message`, `details`, `hint`) and the HTTP status, where known."""
    return InternalFault()
