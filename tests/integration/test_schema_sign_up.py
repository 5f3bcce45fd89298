"""What signing up, and ceasing to exist, does to the schema."""

import asyncio
import json
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from jose import jwt

from tests.support.callers import PASSWORD, Caller, join, make_team, new_caller, sign_up
from tests.support.pools import PATIENCE_S
from tests.support.stack import RunningStack

PLACES = """
select profiles.display_name, workspaces.name, workspaces.is_personal, members.role
from api.profiles
inner join api.members on members.user_id = profiles.id
inner join api.workspaces on workspaces.id = members.workspace_id
where profiles.id = $1
"""


async def delete_user(database: asyncpg.Connection, caller: Caller) -> None:
    await database.execute("delete from auth.users where id = $1", caller.user_id)


async def test_person_who_signs_up_has_a_profile_and_owns_one_personal_workspace(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    caller = await sign_up(stack, display_name="Ada")
    rows = await database.fetch(PLACES, caller.user_id)
    assert [tuple(row) for row in rows] == [("Ada", "Personal workspace", True, "owner")]


async def test_token_of_auth_and_minted_token_carry_the_same_claims(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    """Else tests with minted tokens would prove nothing about real ones."""
    real, minted = await sign_up(stack), await new_caller(stack, database)
    claims = [jwt.get_unverified_claims(caller.access_token) for caller in (real, minted)]
    assert claims[0].keys() - {"amr"} == claims[1].keys()
    assert {name: claims[0][name] for name in ("iss", "aud", "role", "aal", "is_anonymous")} == {
        name: claims[1][name] for name in ("iss", "aud", "role", "aal", "is_anonymous")
    }


@pytest.mark.parametrize(
    ("metadata", "email", "expected"),
    [
        ({"display_name": "Ada"}, "a@example.com", "Ada"),
        ({"full_name": "Ada Lovelace"}, "a@example.com", "Ada Lovelace"),
        ({"name": "ada"}, "a@example.com", "ada"),
        ({"display_name": "  two\n\tlines\u0007 "}, "a@example.com", "two lines"),
        ({"display_name": "x" * 1000}, "a@example.com", "x" * 100),
        ({"display_name": ("x" * 99) + " y"}, "a@example.com", "x" * 99),
        ({"display_name": ""}, "ada@example.com", "ada"),
        ({"display_name": " \n "}, "ada@example.com", "ada"),
        ({"display_name": {"nested": [1]}}, "a@example.com", '{"nested": [1]}'),
        ({"display_name": 7}, "a@example.com", "7"),
        ("not an object", "ada@example.com", "ada"),
        (None, "ada@example.com", "ada"),
        ({}, "@example.com", "New member"),
        ({}, None, "New member"),
    ],
)
async def test_sign_up_succeeds_whatever_name_it_carries(
    database: asyncpg.Connection, metadata: object, email: str | None, expected: str
) -> None:
    user_id = uuid4()
    transaction = database.transaction()
    await transaction.start()
    try:
        await database.execute(
            "insert into auth.users (id, email, raw_user_meta_data) values ($1, $2, $3)",
            user_id,
            email,
            None if metadata is None else json.dumps(metadata),
        )
        assert await database.fetchval("select display_name from api.profiles where id = $1", user_id) == expected
    finally:
        await transaction.rollback()


async def test_of_people_who_race_for_one_address_one_gets_it_whole(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    address = f"{uuid4().hex}@example.com"
    headers = {"apikey": stack.publishable_key}
    async with httpx.AsyncClient(base_url=stack.supabase_url, headers=headers, timeout=PATIENCE_S) as client:
        body = {"email": address, "password": PASSWORD}
        answers = await asyncio.gather(*(client.post("/auth/v1/signup", json=body) for _ in range(5)))
    assert [answer.status_code for answer in answers].count(200) == 1
    [user] = await database.fetch("select id from auth.users where email = $1", address)
    assert len(await database.fetch(PLACES, user["id"])) == 1


async def test_many_sign_ups_at_once_all_get_their_place(stack: RunningStack, database: asyncpg.Connection) -> None:
    callers = await asyncio.gather(*(sign_up(stack) for _ in range(8)))
    for caller in callers:
        assert len(await database.fetch(PLACES, caller.user_id)) == 1


async def test_nobody_has_two_personal_workspaces(stack: RunningStack, database: asyncpg.Connection) -> None:
    caller = await new_caller(stack, database)
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.execute(
            "insert into api.workspaces (name, is_personal, created_by) values ('Second', true, $1)", caller.user_id
        )


# --- ceasing to exist


async def workspaces_of(database: asyncpg.Connection, created_by: UUID) -> int:
    return int(await database.fetchval("select count(*) from api.workspaces where created_by = $1", created_by))


async def test_deleted_person_leaves_nothing_that_only_they_used(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    caller = await new_caller(stack, database)
    alone = await database.fetchval(
        "insert into api.workspaces (name, created_by) values ('Alone', $1) returning id", caller.user_id
    )
    await join(database, alone, caller, "owner")
    await delete_user(database, caller)
    assert await database.fetch("select from api.profiles where id = $1", caller.user_id) == []
    assert await database.fetch("select from api.members where user_id = $1", caller.user_id) == []
    assert await database.fetch("select from api.workspaces where id = $1", alone) == []
    assert await workspaces_of(database, caller.user_id) == 0


async def test_only_owner_of_a_workspace_others_use_cannot_be_deleted(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    team = await make_team(stack, database)
    with pytest.raises(asyncpg.PostgresError, match="last_owner"):
        await delete_user(database, team.owner)
    assert await database.fetchval("select count(*) from auth.users where id = $1", team.owner.user_id) == 1
    assert len(await database.fetch(PLACES, team.owner.user_id)) == 2


async def test_workspace_outlives_an_owner_beside_whom_there_is_another(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    team = await make_team(stack, database)
    await join(database, team.workspace_id, team.stranger, "owner")
    await delete_user(database, team.owner)
    rows = await database.fetch("select created_by from api.workspaces where id = $1", team.workspace_id)
    assert [row["created_by"] for row in rows] == [None]


async def test_two_owners_deleted_at_once_leave_one_where_others_remain(
    stack: RunningStack, database: asyncpg.Connection
) -> None:
    """The first deletion is made and not committed when the second one arrives."""
    team = await make_team(stack, database)
    await join(database, team.workspace_id, team.stranger, "owner")
    other = await asyncpg.connect(stack.database_url)
    try:
        transaction = other.transaction()
        await transaction.start()
        await delete_user(other, team.owner)
        waiting = asyncio.create_task(delete_user(database, team.stranger))
        # not pg_stat_activity: within a transaction that shows for good what it showed first
        waits = "select exists (select from pg_locks where not granted and pid = $1)"
        async with asyncio.timeout(30):
            while not await other.fetchval(waits, database.get_server_pid()):
                assert not waiting.done()
        await transaction.commit()
        with pytest.raises(asyncpg.PostgresError, match="last_owner"):
            await waiting
    finally:
        await other.close()
