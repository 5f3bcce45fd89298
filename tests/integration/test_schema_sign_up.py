"""What signing up, and ceasing to exist, does to the schema."""

import asyncpg

from tests.support.callers import sign_up
from tests.support.stack import RunningStack


async def test_person_who_signs_up_has_a_profile_and_owns_one_personal_workspace(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    caller = await sign_up(stack, display_name="Ada")
    rows = await database.fetch(
        """
        select profiles.display_name, workspaces.name, workspaces.is_personal, members.role
        from api.profiles
        inner join api.members on members.user_id = profiles.id
        inner join api.workspaces on workspaces.id = members.workspace_id
        where profiles.id = $1
        """,
        caller.user_id,
    )
    assert [tuple(row) for row in rows] == [("Ada", "Personal workspace", True, "owner")]
