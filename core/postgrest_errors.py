"""What PostgREST and the SQL behind it complain about, in the words of our API.

Our own SQL functions raise SQLSTATE `PGRST` with a code like `last_owner`, a sentence and a status: those pass as they
are. Everything else is looked up by code, and none of its text is shown: PostgreSQL's messages name tables and columns.
Source: PostgREST's errors.rst and Error.hs; where we differ, the table says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from core.errors import (
    BadGateway,
    ButtressError,
    Conflict,
    GatewayTimeout,
    InternalFault,
    InvalidInput,
    MethodNotAllowed,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    PreconditionFailed,
    TooLarge,
    TooManyRequests,
    Unavailable,
    Unprocessable,
    UnsupportedMediaType,
)


class PostgrestFailure(Exception):
    """What PostgREST said, for the log: the cause of the error that the caller sees."""


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: type[ButtressError]
    code: str | None = None
    message: str | None = None
    retry_after_s: float | None = None

    def error(self) -> ButtressError:
        if self.retry_after_s is not None:
            return self.kind(self.message, code=self.code, retry_after_s=self.retry_after_s)
        return self.kind(self.message, code=self.code)


_OUR_FAULT: Final = _Rule(InternalFault)
_BAD_VALUE: Final = _Rule(InvalidInput, "invalid_value", "A value in the request has the wrong form.")
_BAD_QUERY: Final = _Rule(InvalidInput, "invalid_query", "The filter, order or page asked for is not valid.")
_DATABASE_DOWN: Final = _Rule(
    Unavailable, "database_unavailable", "The database cannot be reached right now. Retry shortly.", 1.0
)
_READ_ONLY: Final = _Rule(Unavailable, "database_read_only", "The database accepts no changes right now.", 30.0)
_SCHEMA_LOADING: Final = _Rule(Unavailable, "schema_loading", "The database is being upgraded. Retry shortly.", 2.0)
_BUSY: Final = _Rule(Conflict, "write_conflict", "Somebody else changed the same thing at that moment. Retry.")
_TAKEN: Final = _Rule(Conflict, "already_exists", "Something with the same name or key already exists.")
_REFERENCE: Final = _Rule(
    Conflict, "reference_conflict", "This refers to something that is gone, or something else still refers to this."
)
_BAD_TOKEN: Final = _Rule(NotAuthenticated, "token_invalid", "The access token is not valid. Sign in again.")
_EXPIRED_TOKEN: Final = _Rule(
    NotAuthenticated, "token_expired", "The access token has expired. Refresh it, then retry."
)
_NO_TOKEN: Final = _Rule(NotAuthenticated, "token_missing")

_BY_CODE: Final[Mapping[str, _Rule]] = {
    "21000": _OUR_FAULT,
    "22023": _BAD_VALUE,
    "23502": _Rule(InvalidInput, "value_missing", "A value that must be given is missing."),
    "23503": _REFERENCE,
    "23505": _TAKEN,
    "23514": _Rule(Unprocessable, "value_not_allowed", "A value in the request is outside of what is allowed."),
    "25006": _READ_ONLY,  # PostgREST: 405; we write by POST only, so the database is read-only (full disk, replica)
    "40001": _BUSY,
    "40P01": _BUSY,
    "42501": _Rule(NotAllowed),
    "53400": _OUR_FAULT,
    "55P03": _BUSY,
    "57014": _Rule(GatewayTimeout, "database_timeout", "The database did not answer in time. Nothing was changed."),
    "57P01": _DATABASE_DOWN,
    "57P02": _DATABASE_DOWN,
    "57P03": _DATABASE_DOWN,
    "P0001": _Rule(InvalidInput),
    # PostgREST's own, by group: connection, request, schema cache, token.
    "PGRST000": _DATABASE_DOWN,
    "PGRST001": _DATABASE_DOWN,
    "PGRST002": _DATABASE_DOWN,
    "PGRST003": _DATABASE_DOWN,  # PostgREST: 504; no connection was free, so nothing was done and a retry is safe
    "PGRST100": _BAD_QUERY,
    "PGRST102": _Rule(InvalidInput, "invalid_json", "The body is not valid JSON of the expected shape."),
    "PGRST103": _BAD_QUERY,
    "PGRST116": _Rule(NotFound),  # exactly one row was asked for, and there is none that the caller may see
    "PGRST200": _SCHEMA_LOADING,  # 200, 202, 204, 205: the schema cache is older than the code that asks
    "PGRST202": _SCHEMA_LOADING,
    "PGRST204": _SCHEMA_LOADING,
    "PGRST205": _SCHEMA_LOADING,
    "PGRST301": _BAD_TOKEN,
    "PGRST302": _NO_TOKEN,
    "PGRST303": _BAD_TOKEN,
}

_BY_CLASS: Final[Mapping[str, _Rule]] = {
    "08": _DATABASE_DOWN,
    "0L": _Rule(NotAllowed),
    "0P": _Rule(NotAllowed),
    "22": _BAD_VALUE,
    "23": _Rule(InvalidInput),
    "28": _Rule(NotAllowed),
    "53": _DATABASE_DOWN,
}

_BY_STATUS: Final[Mapping[int, type[ButtressError]]] = {
    400: InvalidInput,
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    405: MethodNotAllowed,
    409: Conflict,
    412: PreconditionFailed,
    413: TooLarge,
    415: UnsupportedMediaType,
    422: Unprocessable,
    429: TooManyRequests,
    503: Unavailable,
    504: GatewayTimeout,
}

_BUSINESS_CODE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SQLSTATE: Final = re.compile(r"[0-9A-Z]{5}")
_CHOSEN_STATUS: Final = re.compile(r"PT([1-5]\d\d)")


def error_from_postgrest(
    body: Mapping[str, object], *, status: int | None = None, authenticated: bool = True
) -> ButtressError:
    """Our error for a PostgREST error body (`code`, `message`, `details`, `hint`) and its HTTP status, where known.

    An empty body, or one of a proxy, is judged by its status alone. What PostgREST said is the error's `__cause__`.
    `authenticated`: whether the request carried a user's token; without one, a refusal means "sign in first" (401).
    """
    code = str(body.get("code") or "")
    message = str(body.get("message") or "")
    if _BUSINESS_CODE.fullmatch(code):
        error = _business_error(code, message, body.get("details"), status)
    else:
        error = _error_by_code(code, message, status)
    if isinstance(error, NotAllowed) and code == "42501" and not authenticated:
        error = NotAuthenticated()
    error.__cause__ = PostgrestFailure(f"{status} {code}: {message} {body.get('details') or ''}".rstrip())
    return error


def _business_error(code: str, message: str, details: object, status: int | None) -> ButtressError:
    """An error that our own SQL functions raised on purpose: its text is product text."""
    kind = _BY_STATUS.get(status or 0, Unprocessable)
    return kind(message or None, code=code, details=details if isinstance(details, Mapping) else None)


def _error_by_code(code: str, message: str, status: int | None) -> ButtressError:
    chosen = _CHOSEN_STATUS.fullmatch(code)
    if chosen:
        return _BY_STATUS.get(int(chosen[1]), InternalFault)()
    if code == "22023" and re.search(r"role .* does not exist", message):
        return _BAD_TOKEN.error()
    if code in {"PGRST301", "PGRST303"} and "expired" in message:
        return _EXPIRED_TOKEN.error()
    rule = _BY_CODE.get(code) or (_BY_CLASS.get(code[:2]) if _SQLSTATE.fullmatch(code) else None)
    if rule is not None:
        return rule.error()
    if code.startswith("PGRST") or _SQLSTATE.fullmatch(code):
        return InternalFault()  # we asked for something that cannot be asked, or the database is broken
    return _error_by_status(status)


def _error_by_status(status: int | None) -> ButtressError:
    """For an answer that is not PostgREST's: a proxy's, mostly. Its 4xx are no verdict on what our caller sent."""
    if status in {401, 403, 429, 503, 504}:
        return _BY_STATUS[status]()
    return BadGateway()
