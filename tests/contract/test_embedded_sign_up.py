"""A sign-up happens whole or not at all, and a race for one address has one winner."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import asyncpg
import httpx
import pytest

SignUp = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def broken_sessions(probe: asyncpg.Connection) -> AsyncIterator[None]:
    """The last thing a sign-up writes, the session, fails."""
    await probe.execute(
        """
        create function public.probe_break() returns trigger language plpgsql as
            'begin raise exception ''broken''; end';
        create trigger probe_break before insert on auth.sessions for each row execute function public.probe_break();
        """
    )
    yield
    await probe.execute("drop trigger if exists probe_break on auth.sessions; drop function public.probe_break()")


async def test_a_sign_up_that_fails_half_way_leaves_nothing(
    broken_sessions: None, sign_up_response: SignUp, probe: asyncpg.Connection
) -> None:
    email = f"{uuid4().hex}@example.com"
    assert (await sign_up_response(email)).status_code == 500
    assert await probe.fetchval("select count(*) from auth.users where email = $1", email) == 0


async def test_the_same_address_cannot_sign_up_twice(sign_up_response: SignUp) -> None:
    email = f"{uuid4().hex}@example.com"
    assert (await sign_up_response(email)).status_code == 200
    again = await sign_up_response(email.upper())
    assert again.status_code == 422
    assert again.json()["error_code"] == "user_already_exists"


async def test_of_many_at_once_for_one_address_one_wins_and_none_breaks(
    sign_up_response: SignUp, probe: asyncpg.Connection
) -> None:
    email = f"{uuid4().hex}@example.com"
    responses = await asyncio.gather(*(sign_up_response(email) for _ in range(8)))
    assert sorted(response.status_code for response in responses) == [200] + [422] * 7
    assert await probe.fetchval("select count(*) from auth.identities where email = $1", email) == 1


async def test_metadata_reaches_triggers_as_an_object(sign_up_response: SignUp, probe: asyncpg.Connection) -> None:
    user = (await sign_up_response(display_name="Ada")).json()["user"]
    stored = await probe.fetchrow(
        "select jsonb_typeof(raw_user_meta_data), raw_user_meta_data ->> 'display_name' from auth.users where id = $1",
        user["id"],
    )
    assert stored is not None
    assert tuple(stored) == ("object", "Ada")


async def test_a_weak_password_is_refused(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.post(
        "/auth/v1/signup", json={"email": f"{uuid4().hex}@example.com", "password": "short"}
    )
    assert (response.status_code, response.json()["error_code"]) == (422, "weak_password")
