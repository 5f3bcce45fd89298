"""Row level security costs an index lookup: what the planner chooses for the queries every request makes."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from stack import migrations
from tests.support.scratch_database import scratch_database
from tests.support.stack import RunningStack

PEOPLE = 20_000

Plan = dict[str, Any]  # a node as EXPLAIN (format json) writes it: values of any JSON type

# everybody owns their personal workspace; every hundred people share one more
FILL = f"""
insert into auth.users (id, email, raw_user_meta_data)
select gen_random_uuid(), n || '@example.com', '{{}}' from generate_series(1, {PEOPLE}) as n;

insert into api.workspaces (name, created_by)
select 'Shared', id from (select id, row_number() over (order by id) as n from api.profiles) as p where n % 100 = 0;

insert into api.members (workspace_id, user_id, role)
select w.id, p.id, 'member'
from (select id, (row_number() over (order by id) - 1) / 100 as bin from api.profiles) as p
inner join (
    select id, row_number() over (order by id) - 1 as bin from api.workspaces where not is_personal
) as w using (bin);
"""

# an index alone answers only for pages of which that is known
ALL_VISIBLE = """
select bool_and(relpages > 0 and relallvisible = relpages) from pg_class
where oid = any (array['api.profiles', 'api.workspaces', 'api.members']::regclass[])
"""


@pytest.fixture
async def crowded(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    """A database with many people in it."""
    async with scratch_database(stack) as url:
        await migrations.up(url)
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(FILL)
            while not await connection.fetchval(ALL_VISIBLE):  # else autovacuum, say, was in its way
                await connection.execute("vacuum analyze api.profiles, api.workspaces, api.members")
            yield connection
        finally:
            await connection.close()


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def explain_as(connection: asyncpg.Connection, user_id: UUID, query: str) -> list[Plan]:
    """The nodes of the plan that ran, as a signed-in person."""
    async with connection.transaction():
        claims = json.dumps({"sub": str(user_id), "role": "authenticated", "session_id": str(uuid4())})
        await connection.execute("select set_config('request.jwt.claims', $1, true)", claims)
        await connection.execute("set local role authenticated")
        [plan] = json.loads(await connection.fetchval(f"explain (analyze, format json) {query}"))
    return list(nodes(plan["Plan"]))


@pytest.mark.slow
async def test_policies_are_answered_from_indexes(crowded: asyncpg.Connection) -> None:
    [row] = await crowded.fetch("select user_id, workspace_id from api.members where role = 'member' limit 1")
    person, workspace = row["user_id"], row["workspace_id"]
    queries = [
        "select * from api.workspaces",
        "select * from api.members",
        "select * from api.profiles",
        f"select * from api.profiles where id = '{person}'",
        f"select * from api.members where workspace_id = '{workspace}' order by created_at, user_id limit 20",
        f"update api.workspaces set name = 'New' where id = '{workspace}'",
        f"update api.profiles set display_name = 'New' where id = '{person}'",
        "select * from private.workspaces_of_caller()",
    ]
    for query in queries:
        plan = await explain_as(crowded, person, query)
        assert not [node for node in plan if node["Node Type"] == "Seq Scan"], query
        for node in plan:
            assert node.get("Rows Removed by Filter", 0) <= 200, (
                query,
                node,
            )  # nothing grows with the number of people
            if node["Node Type"] == "Function Scan" or node.get("Subplan Name", "").startswith("InitPlan"):
                assert node["Actual Loops"] <= 1, (query, node)  # asked once a query, not once a row


@pytest.mark.slow
async def test_reading_ones_own_profile_does_not_list_the_fellows(crowded: asyncpg.Connection) -> None:
    person = await crowded.fetchval("select user_id from api.members where role = 'member' limit 1")
    plan = await explain_as(crowded, person, f"select * from api.profiles where id = '{person}'")
    never_run = [node for node in plan if node["Actual Loops"] == 0]
    assert any(node.get("Subplan Name", "").startswith("InitPlan") for node in never_run)


@pytest.mark.slow
async def test_the_helpers_of_policies_use_the_index_alone(crowded: asyncpg.Connection) -> None:
    """EXPLAIN does not look inside functions, so their query is planned here, as their owner."""
    person = await crowded.fetchval("select user_id from api.members where role = 'member' limit 1")
    [plan] = json.loads(
        await crowded.fetchval(
            "explain (format json) select workspace_id from api.members "
            f"where user_id = '{person}' and role = any ('{{owner,admin}}')"
        )
    )
    scans = [(node["Node Type"], node.get("Index Name")) for node in nodes(plan["Plan"])]
    assert scans == [("Index Only Scan", "members_user_id_idx")]
