"""Whom PostgREST believes: a bad token gets nothing, and no token makes anybody more than a signed-in person."""

from uuid import uuid4

import pytest

from tests.support.callers import Caller, Team, mint_token, rest
from tests.support.row_changes import TABLES
from tests.support.stack import RunningStack


class OtherSecret:
    """The same Supabase, for somebody who guesses its secret."""

    def __init__(self, stack: RunningStack) -> None:
        self.supabase_url = stack.supabase_url
        self.publishable_key = stack.publishable_key
        self.jwt_secret = "a-secret-of-forty-characters-but-not-ours"


async def status_of(stack: RunningStack, team: Team, token: str) -> int:
    async with rest(stack, Caller(team.owner.user_id, team.owner.email, token)) as client:
        response = await client.get("/workspaces")
    assert response.is_error or response.json() == []
    return response.status_code


async def test_forged_token_is_refused(stack: RunningStack, team: Team) -> None:
    assert await status_of(stack, team, mint_token(OtherSecret(stack), team.owner.user_id, session_id=uuid4())) == 401


async def test_expired_token_is_refused(stack: RunningStack, team: Team) -> None:
    token = mint_token(stack, team.owner.user_id, session_id=uuid4(), lifetime_s=-60)  # PostgREST forgives 30 s
    assert await status_of(stack, team, token) == 401


@pytest.mark.parametrize("token", ["x", "a.b.c", "null", "{}", "Bearer"])
async def test_nonsense_is_refused(stack: RunningStack, team: Team, token: str) -> None:
    assert await status_of(stack, team, token) == 401


@pytest.mark.parametrize(
    "role",
    ["postgres", "authenticator", "gateway_service", "supabase_auth_admin", "pg_read_all_data", "nobody", "none"],
)
async def test_token_cannot_name_a_role_that_is_no_callers(stack: RunningStack, team: Team, role: str) -> None:
    token = mint_token(stack, team.owner.user_id, session_id=uuid4(), role=role)
    assert await status_of(stack, team, token) in (401, 403)


@pytest.mark.parametrize("claims", [{"sub": None}, {"sub": "not-a-uuid"}, {"sub": ""}])
async def test_token_of_nobody_sees_nothing(stack: RunningStack, team: Team, claims: dict[str, object]) -> None:
    token = mint_token(stack, team.owner.user_id, session_id=uuid4(), claims=claims)
    await status_of(stack, team, token)


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_service_role_has_no_way_around_the_rules(stack: RunningStack, team: Team, table: str) -> None:
    """It bypasses row level security, so it has no grants: nothing here is meant for it."""
    service = Caller(uuid4(), "", mint_token(stack, uuid4(), session_id=uuid4(), role="service_role"))
    async with rest(stack, service) as client:
        for response in (
            await client.get(f"/{table}"),
            await client.delete(f"/{table}", params={"created_at": "gt.2000-01-01"}),
        ):
            assert (response.status_code, response.json()["code"]) == (403, "42501")
