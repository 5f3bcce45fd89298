"""Entity tags where two people may edit: the tag is the row's last change, to the microsecond."""

import re
from datetime import datetime
from typing import Annotated, Final

from litestar.params import HeaderParameter

from api.http.pagination import from_microseconds, to_microseconds
from core.errors import InvalidInput

_TAG: Final = re.compile(r'"([0-9a-f]{1,15})"')

IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match", max_length=100, description="The `ETag` you read; 412 when somebody changed it since."
    ),
]


def etag(updated_at: datetime) -> str:
    """The strong tag of a row that was last changed at this moment."""
    return f'"{to_microseconds(updated_at):x}"'


def expected_version(if_match: str | None) -> datetime | None:
    """The `updated_at` the caller has seen; None where any will do (no header, or `*`). Raises: InvalidInput."""
    if if_match is None or if_match.strip() == "*":
        return None
    match = _TAG.fullmatch(if_match.strip())
    if match is None:
        raise InvalidInput("If-Match takes one ETag exactly as it was sent, or *.", code="invalid_if_match")
    try:
        return from_microseconds(int(match[1], 16))
    except (ValueError, OverflowError):
        raise InvalidInput("If-Match takes one ETag exactly as it was sent, or *.", code="invalid_if_match") from None
