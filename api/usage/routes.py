"""/v1/usage."""

from datetime import date
from typing import Annotated

from litestar import Router, get
from litestar.params import QueryParameter

from api.http.caller import SignedIn
from api.http.envelope import Listing, PageMeta
from api.http.openapi import BEARER, refusals
from api.http.pagination import MAX_LIMIT, bad_cursor, seal, unseal
from api.usage.models import UsageOfDay
from api.usage.queries import summarize_usage
from core.errors import InvalidInput

_LIST = "usage"
_LONGEST_DAYS = 366

Since = Annotated[date | None, QueryParameter(description="First UTC day; 30 days ago by default.")]
Until = Annotated[date | None, QueryParameter(description="Last UTC day; today by default.")]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Rows a page.")]
Cursor = Annotated[str | None, QueryParameter(max_length=500, description="`meta.next_cursor` of the page before.")]


@get("/", security=BEARER, responses=refusals())
async def get_usage(
    caller: SignedIn, since: Since = None, until: Until = None, limit: Limit = 20, cursor: Cursor = None
) -> Listing[UsageOfDay]:
    """What you used at the gateway, by day and model, newest first. A full page may be the last one."""
    if since and until and not 0 <= (until - since).days <= _LONGEST_DAYS:
        raise InvalidInput("`until` must be 0 to 366 days after `since`.", code="invalid_parameter")
    after = None if cursor is None else _position(unseal(_LIST, cursor))
    rows = await summarize_usage(caller.db, since=since, until=until, after=after, max_rows=limit)
    next_cursor = seal(_LIST, f"{rows[-1].day.isoformat()}|{rows[-1].model}") if len(rows) == limit else None
    return Listing(data=rows, meta=PageMeta(next_cursor=next_cursor))


def _position(text: str) -> tuple[date, str]:
    day, _, model = text.partition("|")
    try:
        return date.fromisoformat(day), model
    except ValueError:
        raise bad_cursor() from None


ROUTER = Router("/usage", route_handlers=[get_usage], tags=["usage"])
