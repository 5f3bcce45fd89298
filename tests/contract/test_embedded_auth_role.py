"""Auth works with the rights it has on hosted Supabase, so what breaks sign-ups there breaks them here."""

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import httpx
import pytest

SignUp = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def greeting(probe: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A trigger on auth.users that writes who it runs as into a table only the owner may write to."""
    await probe.execute(
        """
        create table probe_private.greetings (person uuid, role text);
        create function probe_private.greet() returns trigger language plpgsql set search_path = '' as
            'begin insert into probe_private.greetings values (new.id, current_user); return null; end';
        create trigger probe_greet after insert on auth.users for each row execute function probe_private.greet();
        """
    )
    yield probe
    await probe.execute(
        """
        drop trigger probe_greet on auth.users;
        drop function probe_private.greet();
        drop table probe_private.greetings;
        """
    )


async def test_a_trigger_without_security_definer_has_only_auths_rights(
    greeting: asyncpg.Connection, sign_up_response: SignUp
) -> None:
    assert (await sign_up_response()).status_code == 500
    await greeting.execute("grant usage on schema probe_private to supabase_auth_admin")
    await greeting.execute("grant insert on probe_private.greetings to supabase_auth_admin")
    assert (await sign_up_response()).status_code == 200
    assert await greeting.fetchval("select role from probe_private.greetings") == "supabase_auth_admin"
    await greeting.execute("revoke usage on schema probe_private from supabase_auth_admin")


async def test_a_trigger_with_security_definer_has_its_owners(
    greeting: asyncpg.Connection, sign_up_response: SignUp
) -> None:
    await greeting.execute("alter function probe_private.greet() security definer")
    assert (await sign_up_response()).status_code == 200
