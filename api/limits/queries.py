"""api.limit_report, as the caller."""

from typing import get_args
from uuid import UUID

from postgrest import AsyncPostgrestClient

from api.limits.models import Limit, LimitName, Scope, SubjectLimits
from api.supabase.postgrest import parse_rows, run


class _Row(Limit):
    scope: Scope
    subject_id: UUID


async def report_limits(
    db: AsyncPostgrestClient, *, key_id: UUID | None, workspace_id: UUID | None
) -> list[SubjectLimits]:
    """The six limits of the key, of the workspace, or of the caller and then of each of their keys.

    Raises: what api.limit_report refuses with.
    """
    given = {name: str(value) for name, value in (("key_id", key_id), ("workspace_id", workspace_id)) if value}
    subjects: dict[tuple[Scope, UUID], SubjectLimits] = {}
    for row in parse_rows((await run(db.rpc("limit_report", given))).body, _Row):
        subject = subjects.setdefault(
            (row.scope, row.subject_id), SubjectLimits(scope=row.scope, id=row.subject_id, limits=[])
        )
        subject.limits.append(Limit(**row.model_dump(include=set(Limit.model_fields))))
    for subject in subjects.values():
        subject.limits.sort(key=lambda limit: get_args(LimitName).index(limit.name))
    return list(subjects.values())
