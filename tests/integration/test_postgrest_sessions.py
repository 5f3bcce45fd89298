"""A signed-out token is valid until it expires, but what cannot be undone asks for a session that is still there."""

import asyncpg
import pytest

from tests.support.callers import Caller, Team, call_function, mint_token, outcome, rest
from tests.support.row_changes import read_rows
from tests.support.stack import RunningStack


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("create_workspace", {"name": "Late"}),
        ("delete_workspace", {}),
        ("change_member_role", {"role": "admin"}),
        ("remove_member", {}),
    ],
)
async def test_signed_out_token_reads_but_changes_nothing_for_good(
    stack: RunningStack, database: asyncpg.Connection, team: Team, function: str, arguments: dict[str, object]
) -> None:
    await database.execute("delete from auth.sessions where user_id = $1", team.owner.user_id)
    if function != "create_workspace":
        arguments = {**arguments, "workspace_id": team.workspace_id}
    if function.endswith(("role", "member")):
        arguments = {**arguments, "user_id": team.viewer.user_id}
    before = await read_rows(database)
    assert outcome(await call_function(stack, team.owner, function, **arguments)) == (401, "session_ended")
    assert await read_rows(database) == before
    async with rest(stack, team.owner) as client:
        assert len((await client.get("/workspaces")).json()) == 2


async def test_session_of_somebody_else_is_no_session(
    stack: RunningStack, database: asyncpg.Connection, team: Team
) -> None:
    query = "select id from auth.sessions where user_id = $1"
    foreign_session = await database.fetchval(query, team.admin.user_id)
    token = mint_token(stack, team.owner.user_id, session_id=foreign_session)
    impostor = Caller(team.owner.user_id, team.owner.email, token)
    response = await call_function(stack, impostor, "delete_workspace", workspace_id=team.workspace_id)
    assert outcome(response) == (401, "session_ended")


async def test_session_past_its_end_is_no_session(
    stack: RunningStack, database: asyncpg.Connection, team: Team
) -> None:
    await database.execute(
        "update auth.sessions set not_after = now() - interval '1 second' where user_id = $1", team.owner.user_id
    )
    response = await call_function(stack, team.owner, "delete_workspace", workspace_id=team.workspace_id)
    assert outcome(response) == (401, "session_ended")
