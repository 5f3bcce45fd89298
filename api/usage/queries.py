"""api.usage_summary, as the caller."""

from datetime import date
from typing import cast

from postgrest import AsyncPostgrestClient

from api.supabase.postgrest import parse_rows, run
from api.usage.models import UsageOfDay


async def summarize_usage(
    db: AsyncPostgrestClient,
    *,
    since: date | None,
    until: date | None,
    after: tuple[date, str] | None,
    max_rows: int,
) -> list[UsageOfDay]:
    """The caller's usage by day and model, newest day first, after the given one.

    Units: UTC days, both ends included; by default the last 30, at most 367.
    """
    parameters: dict[str, object] = {
        "since": since and since.isoformat(),
        "until": until and until.isoformat(),
        "page_size": max_rows,
        "after_day": after and after[0].isoformat(),
        "after_model": after and after[1],
    }
    # the client's type knows text only; it sends any JSON
    given = cast("dict[str, str]", {name: value for name, value in parameters.items() if value is not None})
    return parse_rows((await run(db.rpc("usage_summary", given))).body, UsageOfDay)
