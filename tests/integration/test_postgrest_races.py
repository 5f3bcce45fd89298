"""Two who act on one workspace at the same time: an owner always remains."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from tests.support.callers import call_function, join, make_team, new_caller, outcome, read_roles
from tests.support.stack import RunningStack


@pytest.mark.parametrize("function", ["change_member_role", "remove_member"])
async def test_two_owners_who_unseat_each_other_at_once_leave_one(
    stack: RunningStack, database: asyncpg.Connection, function: str
) -> None:
    first, second = await new_caller(stack, database), await new_caller(stack, database)
    arguments: dict[str, object] = {"role": "viewer"} if function == "change_member_role" else {}
    for _ in range(10):
        workspace_id = (await call_function(stack, first, "create_workspace", name="Duel")).json()["id"]
        await join(database, UUID(workspace_id), second, "owner")
        answers = await asyncio.gather(
            call_function(stack, first, function, workspace_id=workspace_id, user_id=second.user_id, **arguments),
            call_function(stack, second, function, workspace_id=workspace_id, user_id=first.user_id, **arguments),
        )
        assert sorted(answer.is_success for answer in answers) == [False, True]
        assert list((await read_roles(database, UUID(workspace_id))).values()).count("owner") == 1


async def test_two_owners_who_step_down_at_once_leave_one(stack: RunningStack, database: asyncpg.Connection) -> None:
    owners = [await new_caller(stack, database), await new_caller(stack, database)]
    for _ in range(10):
        workspace_id = (await call_function(stack, owners[0], "create_workspace", name="Relay")).json()["id"]
        await join(database, UUID(workspace_id), owners[1], "owner")
        answers = await asyncio.gather(
            *(
                call_function(
                    stack, owner, "change_member_role", workspace_id=workspace_id, user_id=owner.user_id, role="member"
                )
                for owner in owners
            )
        )
        assert sorted(outcome(answer) for answer in answers) == [(200, None), (409, "last_owner")]


async def test_role_change_waits_for_one_that_is_under_way(stack: RunningStack, database: asyncpg.Connection) -> None:
    """The order is forced: the first change is made and not committed when the second one arrives."""
    team = await make_team(stack, database)
    await database.execute(
        "update api.members set role = 'owner' where workspace_id = $1 and user_id = $2",
        team.workspace_id,
        team.admin.user_id,
    )
    other = await asyncpg.connect(stack.database_url)
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("select private.lock_workspace_as_caller($1, $2)", team.workspace_id, team.owner.user_id)
        await other.execute(
            "update api.members set role = 'viewer' where workspace_id = $1 and user_id = $2",
            team.workspace_id,
            team.owner.user_id,
        )
        step_down = {"workspace_id": team.workspace_id, "user_id": team.admin.user_id, "role": "viewer"}
        waiting = asyncio.create_task(call_function(stack, team.admin, "change_member_role", **step_down))
        waiters = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%change_member_role%'"
        )
        while await database.fetchval(waiters) == 0:
            assert not waiting.done()
        await transaction.commit()
        assert outcome(await waiting) == (409, "last_owner")
    finally:
        await other.close()
