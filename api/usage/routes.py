"""/v1/usage."""

from datetime import date
from typing import Annotated, Final, cast, get_args
from uuid import UUID

import orjson
from litestar import Router, get
from litestar.params import QueryParameter

from api.http.caller import SignedIn
from api.http.envelope import Listing, PageMeta
from api.http.openapi import BEARER, refusals
from api.http.pagination import MAX_LIMIT, bad_cursor, seal, unseal
from api.usage.models import Grouping, UsageSums
from api.usage.queries import report_usage
from core.errors import InvalidInput

_LIST: Final = "usage"
_LONGEST_DAYS: Final = 366
_COLUMNS: Final[dict[Grouping, str]] = {"day": "day", "user": "user_id", "key": "key_id", "model": "model"}

GroupBy = Annotated[
    str, QueryParameter(max_length=40, description="Any of `day`, `user`, `key` and `model`, comma separated.")
]
Since = Annotated[date | None, QueryParameter(description="First UTC day; 30 days ago by default.")]
Until = Annotated[date | None, QueryParameter(description="Last UTC day; today by default.")]
OfWorkspace = Annotated[
    UUID | None, QueryParameter(description="Calls of this workspace: everybody's for its owners and admins.")
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Rows a page.")]
Cursor = Annotated[str | None, QueryParameter(max_length=800, description="`meta.next_cursor` of the page before.")]


@get("/", security=BEARER, responses=refusals(404))
async def get_usage(
    *,
    caller: SignedIn,
    group_by: GroupBy = "day,model",
    since: Since = None,
    until: Until = None,
    workspace_id: OfWorkspace = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Listing[UsageSums]:
    """What you used at the gateway, or a workspace, by day and model or otherwise, newest first."""
    if since and until and not 0 <= (until - since).days <= _LONGEST_DAYS:
        raise InvalidInput("`until` must be 0 to 366 days after `since`.", code="invalid_parameter")
    wanted = _groupings(group_by)
    after = None if cursor is None else _position(wanted, cursor)
    rows = await report_usage(
        caller.db,
        group_by=wanted,
        since=since,
        until=until,
        workspace_id=workspace_id,
        after=after,
        max_rows=limit + 1,
    )
    shown = rows[:limit]
    next_cursor = _cursor(wanted, shown[-1]) if len(rows) > limit else None
    return Listing(data=shown, meta=PageMeta(next_cursor=next_cursor))


def _groupings(text: str) -> list[Grouping]:
    """In the order of `Grouping`, each once. Raises: InvalidInput."""
    asked = set(text.split(",")) if text else set()
    known = get_args(Grouping)
    if not asked <= set(known):
        raise InvalidInput(
            "`group_by` takes day, user, key and model, comma separated.",
            code="invalid_parameter",
            details={"fields": [{"field": "group_by", "code": "invalid", "message": "Not a way to group usage."}]},
        )
    return [cast("Grouping", name) for name in known if name in asked]


def _cursor(wanted: list[Grouping], row: UsageSums) -> str:
    place = row.model_dump(mode="json", include={_COLUMNS[name] for name in wanted})
    return seal(_LIST, orjson.dumps([place[_COLUMNS[name]] for name in wanted]).decode())


def _position(wanted: list[Grouping], cursor: str) -> dict[str, str | None]:
    """The row that the cursor names, checked to be one of this grouping. Raises: InvalidInput (invalid_cursor)."""
    try:
        place = orjson.loads(unseal(_LIST, cursor))
        if not isinstance(place, list) or len(place) != len(wanted):
            raise bad_cursor()
        return {_COLUMNS[name]: _read(name, value) for name, value in zip(wanted, place, strict=True)}
    except (ValueError, TypeError):
        raise bad_cursor() from None


def _read(name: Grouping, value: object) -> str | None:
    """Raises: ValueError, TypeError for what is no such column's value."""
    if value is None and name == "key":
        return None
    if not isinstance(value, str):
        raise TypeError(name)
    if name == "day":
        return date.fromisoformat(value).isoformat()
    return value if name == "model" else str(UUID(value))


ROUTER = Router("/usage", route_handlers=[get_usage], tags=["usage"])
