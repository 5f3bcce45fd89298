"""Workspaces and members over real HTTP: pages, versions, races."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.api_client import api_as, refusal
from tests.support.api_server import ApiServer
from tests.support.callers import Team, join, new_caller
from tests.support.stack import RunningStack


@pytest.fixture
async def owner(api_server: ApiServer, team: Team) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, team.owner) as client:
        yield client


@pytest.fixture
async def admin(api_server: ApiServer, team: Team) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, team.admin) as client:
        yield client


async def every_page(api: httpx.AsyncClient, path: str, limit: int) -> list[list[dict[str, Any]]]:  # Any: JSON rows
    """The pages of a list, in order, to the last one."""
    pages, cursor = [], None
    while True:
        query = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        page = (await api.get(path, params=query)).json()
        pages.append(page["data"])
        cursor = page["meta"]["next_cursor"]
        if cursor is None:
            return pages


async def test_a_made_workspace_is_where_its_location_says_and_is_owned_by_its_maker(owner: httpx.AsyncClient) -> None:
    made = await owner.post("/v1/workspaces", json={"name": "  Plans  "})
    assert made.status_code == 201
    found = await owner.get(made.headers["location"])
    assert found.json() == made.json()
    assert found.headers["etag"] == made.headers["etag"]
    assert found.json()["data"]["name"] == "Plans"
    members = (await owner.get(f"{made.headers['location']}/members")).json()["data"]
    assert [(member["display_name"], member["role"]) for member in members] == [("Owner", "owner")]


async def test_pages_of_workspaces_hold_each_once_even_when_all_were_made_at_the_same_moment(
    owner: httpx.AsyncClient, team: Team, database: asyncpg.Connection
) -> None:
    """One statement gives every row the same created_at, so that only the id tells them apart."""
    await database.execute(
        """
        with made as (
            insert into api.workspaces (name, created_by)
            select 'Same moment', $1 from generate_series(1, 23)
            returning id
        )
        insert into api.members (workspace_id, user_id, role) select id, $1, 'owner' from made
        """,
        team.owner.user_id,
    )
    pages = await every_page(owner, "/v1/workspaces", 5)
    ids = [row["id"] for page in pages for row in page]
    assert [len(page) for page in pages] == [5, 5, 5, 5, 5]
    assert len(ids) == len(set(ids)) == 25
    assert ids == [row["id"] for page in await every_page(owner, "/v1/workspaces", 100) for row in page]


async def test_a_row_added_while_paging_moves_nothing_between_pages(owner: httpx.AsyncClient) -> None:
    for number in range(3):
        await owner.post("/v1/workspaces", json={"name": f"Before {number}"})
    first = (await owner.get("/v1/workspaces?limit=2")).json()
    await owner.post("/v1/workspaces", json={"name": "In between"})
    rest = (await owner.get("/v1/workspaces", params={"cursor": first["meta"]["next_cursor"]})).json()["data"]
    names = [row["name"] for row in first["data"] + rest]
    assert sorted(names) == sorted(["Personal workspace", "Team", "Before 0", "Before 1", "Before 2", "In between"])


async def test_members_are_paged_and_counted_when_asked(
    owner: httpx.AsyncClient, team: Team, stack: RunningStack, database: asyncpg.Connection
) -> None:
    for _ in range(3):
        await join(database, team.workspace_id, await new_caller(stack, database), "viewer")
    path = f"/v1/workspaces/{team.workspace_id}/members"
    pages = await every_page(owner, path, 3)
    people = [row["user_id"] for page in pages for row in page]
    assert len(people) == len(set(people)) == 7
    assert (await owner.get(path)).json()["meta"] == {"next_cursor": None, "count": None}
    first = (await owner.get(f"{path}?limit=3&count=exact")).json()["meta"]
    assert first["count"] == 7
    second = await owner.get(path, params={"limit": 3, "count": "exact", "cursor": first["next_cursor"]})
    assert second.json()["meta"]["count"] == 7


async def test_a_cursor_of_one_list_is_refused_by_another(owner: httpx.AsyncClient, team: Team) -> None:
    cursor = (await owner.get("/v1/workspaces?limit=1")).json()["meta"]["next_cursor"]
    response = await owner.get(f"/v1/workspaces/{team.workspace_id}/members", params={"cursor": cursor})
    assert refusal(response) == (400, "invalid_cursor")


async def test_a_rename_with_a_version_that_somebody_has_changed_since_is_refused(
    owner: httpx.AsyncClient, admin: httpx.AsyncClient, team: Team
) -> None:
    path = f"/v1/workspaces/{team.workspace_id}"
    seen = (await owner.get(path)).headers["etag"]
    first = await admin.patch(path, json={"name": "Admin's"}, headers={"if-match": seen})
    assert first.status_code == 200
    late = await owner.patch(path, json={"name": "Owner's"}, headers={"if-match": seen})
    assert refusal(late) == (412, "precondition_failed")
    assert (await owner.get(path)).json()["data"]["name"] == "Admin's"
    again = await owner.patch(path, json={"name": "Owner's"}, headers={"if-match": first.headers["etag"]})
    assert again.json()["data"]["name"] == "Owner's"
    assert (await owner.patch(path, json={"name": "Any"}, headers={"if-match": "*"})).status_code == 200


async def test_of_twenty_renames_of_one_version_exactly_one_wins(owner: httpx.AsyncClient, team: Team) -> None:
    path = f"/v1/workspaces/{team.workspace_id}"
    seen = (await owner.get(path)).headers["etag"]
    names = [f"Name {number}" for number in range(20)]
    answers = await asyncio.gather(
        *(owner.patch(path, json={"name": name}, headers={"if-match": seen}) for name in names)
    )
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) == 1
    assert statuses.count(412) == 19
    winner = names[statuses.index(200)]
    assert (await owner.get(path)).json()["data"]["name"] == winner


async def test_of_twenty_deletions_one_does_it_and_the_others_find_nothing(
    owner: httpx.AsyncClient, team: Team
) -> None:
    path = f"/v1/workspaces/{team.workspace_id}"
    answers = await asyncio.gather(*(owner.delete(path) for _ in range(20)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(204) == 1
    assert statuses.count(404) == 19
    assert next(answer for answer in answers if answer.status_code == 204).content == b""


async def test_two_owners_who_demote_each_other_leave_one_owner(
    owner: httpx.AsyncClient, admin: httpx.AsyncClient, team: Team, database: asyncpg.Connection
) -> None:
    members = f"/v1/workspaces/{team.workspace_id}/members"
    made = await owner.patch(f"{members}/{team.admin.user_id}", json={"role": "owner"})
    assert made.json()["data"]["role"] == "owner"
    answers = await asyncio.gather(
        owner.patch(f"{members}/{team.admin.user_id}", json={"role": "viewer"}),
        admin.patch(f"{members}/{team.owner.user_id}", json={"role": "viewer"}),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 403]
    owners = "select count(*) from api.members where workspace_id = $1 and role = 'owner'"
    assert await database.fetchval(owners, team.workspace_id) == 1


async def test_the_rules_that_keep_an_owner_are_said_with_a_code(
    owner: httpx.AsyncClient, admin: httpx.AsyncClient, team: Team
) -> None:
    members = f"/v1/workspaces/{team.workspace_id}/members"
    own = f"{members}/{team.owner.user_id}"
    assert refusal(await owner.patch(own, json={"role": "viewer"})) == (409, "last_owner")
    assert refusal(await owner.delete(own)) == (409, "last_owner")
    assert refusal(await admin.delete(own)) == (403, "not_allowed")
    assert refusal(await admin.patch(f"{members}/{team.admin.user_id}", json={"role": "owner"})) == (403, "not_allowed")
    assert refusal(await owner.delete(f"{members}/{uuid4()}")) == (404, "member_not_found")
    personal = next(row for row in (await owner.get("/v1/workspaces")).json()["data"] if row["is_personal"])
    assert refusal(await owner.delete(f"/v1/workspaces/{personal['id']}")) == (409, "personal_workspace")


async def test_a_viewer_may_leave(api_server: ApiServer, team: Team) -> None:
    async with api_as(api_server, team.viewer) as viewer:
        left = await viewer.delete(f"/v1/workspaces/{team.workspace_id}/members/{team.viewer.user_id}")
        assert left.status_code == 204
        assert refusal(await viewer.get(f"/v1/workspaces/{team.workspace_id}")) == (404, "workspace_not_found")
