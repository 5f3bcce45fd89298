"""Keyset pages: a cursor says after which row to go on, so a page costs the same at any depth."""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID

from litestar.di import NamedDependency
from litestar.params import QueryParameter

from core.errors import InvalidInput

MAX_LIMIT: Final = 100
_POSITION: Final = re.compile(r"([0-9]{1,18})\|([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Position:
    """A row's place in a list ordered by (created_at, id); both are typed, so neither can smuggle a filter."""

    created_at: datetime
    row_id: UUID


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for. limit: 1 to 100 rows."""

    limit: int
    cursor: str | None
    count_exactly: bool

    def after(self, list_name: str) -> Position | None:
        """The position to go on from; None at the beginning. Raises: InvalidInput (invalid_cursor)."""
        return None if self.cursor is None else decode_cursor(list_name, self.cursor)


AskedPage = NamedDependency[Page]
"""`page: AskedPage` in a handler's parameters: the page the query string asks for."""


def provide_page(
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Rows a page.")] = 20,
    cursor: Annotated[
        str | None, QueryParameter(max_length=200, description="`meta.next_cursor` of the page before.")
    ] = None,
    count: Annotated[
        Literal["exact"] | None, QueryParameter(description="`exact` adds `meta.count`; it costs a full count.")
    ] = None,
) -> Page:
    """The page the query string asks for."""
    return Page(limit=limit, cursor=cursor, count_exactly=count == "exact")


T = TypeVar("T")


def cut_page(
    rows: list[T], page: Page, list_name: str, position_of: Callable[[T], Position]
) -> tuple[list[T], str | None]:
    """This page's rows and the next page's cursor, out of one row more than a page holds, where there is one."""
    shown = rows[: page.limit]
    return shown, encode_cursor(list_name, position_of(shown[-1])) if len(rows) > page.limit else None


def encode_cursor(list_name: str, position: Position) -> str:
    """An opaque cursor that `decode_cursor` takes back for the list of the same name only; microseconds are kept."""
    return seal(list_name, f"{to_microseconds(position.created_at)}|{position.row_id.hex}")


def decode_cursor(list_name: str, cursor: str) -> Position:
    """The position inside a cursor of ours. Raises: InvalidInput (invalid_cursor)."""
    match = _POSITION.fullmatch(unseal(list_name, cursor))
    if match is None:
        raise bad_cursor()
    try:
        return Position(from_microseconds(int(match[1])), UUID(hex=match[2]))
    except (ValueError, OverflowError):
        raise bad_cursor() from None


def seal(list_name: str, text: str) -> str:
    """The text as an opaque cursor of this list.

    Validated when it comes back, not signed: it holds nothing secret, and row level security decides what any
    position shows.
    """
    return base64.urlsafe_b64encode(f"{list_name}|{text}".encode()).decode().rstrip("=")


def unseal(list_name: str, cursor: str) -> str:
    """The text inside a cursor of this list, still to be checked. Raises: InvalidInput (invalid_cursor)."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise bad_cursor() from None
    name, _, rest = text.partition("|")
    if name != list_name or not rest.isprintable():
        raise bad_cursor()
    return rest


def bad_cursor() -> InvalidInput:
    """The refusal of a cursor that is not from the list it was sent to."""
    return InvalidInput("This cursor is not from this list. Start again without one.", code="invalid_cursor")


def to_microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970, exact (a float would round them)."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_microseconds(microseconds: int) -> datetime:
    """The moment, in UTC. Raises: OverflowError, ValueError past the year 9999."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=rest)
