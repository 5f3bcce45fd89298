"""api.usage_report, as the caller."""

from collections.abc import Sequence
from datetime import date
from typing import cast
from uuid import UUID

from postgrest import AsyncPostgrestClient

from api.supabase.postgrest import parse_rows, run
from api.usage.models import Grouping, UsageSums


async def report_usage(
    db: AsyncPostgrestClient,
    *,
    group_by: Sequence[Grouping],
    since: date | None,
    until: date | None,
    workspace_id: UUID | None,
    after: dict[str, str | None] | None,
    max_rows: int,
) -> list[UsageSums]:
    """Usage by what it is grouped by, newest day first, after the given row (the columns that it is grouped by).

    Units: UTC days, both ends included; by default the last 30, at most 367.
    """
    parameters: dict[str, object] = {
        "group_by": list(group_by),
        "since": since and since.isoformat(),
        "until": until and until.isoformat(),
        "workspace_id": workspace_id and str(workspace_id),
        "page_size": max_rows,
        "after": after,
    }
    # the client's type knows text only; it sends any JSON
    given = cast("dict[str, str]", {name: value for name, value in parameters.items() if value is not None})
    return parse_rows((await run(db.rpc("usage_report", given))).body, UsageSums)
