"""The migrations as a hosted project runs them: its `postgres` is no superuser and owns neither auth nor storage."""

import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from stack import migrations
from tests.support.scratch_database import scratch_database
from tests.support.stack import RunningStack

# What hosted's postgres has. There, an extension of the server (supautils) lets it create the extensions on a list and
# make policies on storage.objects, for which plain PostgreSQL wants a superuser and the owner.
# gateway_service is its own creation there.
HOSTED = """
create extension vector with schema extensions;
create role {role} login createrole bypassrls password '{role}';
grant create on database {database} to {role};
grant usage, create on schema extensions to {role};
grant usage on schema auth, storage to {role};
grant select, insert, update, delete, references, trigger on all tables in schema auth to {role};
grant supabase_storage_admin to {role};
grant anon, authenticated, service_role to {role};
grant gateway_service to {role} with admin option, inherit false, set false;
"""


@pytest.fixture
async def hosted(stack: RunningStack) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """The URL of such a postgres, and a connection as the real superuser beside it."""
    role = f"hosted_{uuid4().hex}"
    async with scratch_database(stack) as superuser_url:
        parts = urlsplit(superuser_url)
        superuser = await asyncpg.connect(superuser_url)
        try:
            await superuser.execute(HOSTED.format(role=role, database=parts.path.removeprefix("/")))
            yield urlunsplit(parts._replace(netloc=f"{role}:{role}@{parts.hostname}:{parts.port}")), superuser
        finally:
            await superuser.execute(f"drop owned by {role} cascade")
            await superuser.execute(f"drop role {role}")
            await superuser.close()


async def test_migrations_and_what_they_make_work_without_a_superuser(
    hosted: tuple[str, asyncpg.Connection],
) -> None:
    url, superuser = hosted
    await migrations.up(url)

    # Auth's own role signs people up and deletes them
    user_id, session_id = uuid4(), uuid4()
    await superuser.execute("set role supabase_auth_admin")
    await superuser.execute("insert into auth.users (id, email) values ($1, 'ada@example.com')", user_id)
    await superuser.execute("insert into auth.sessions (id, user_id) values ($1, $2)", session_id, user_id)
    await superuser.execute("reset role")

    async with superuser.transaction():
        claims = json.dumps({"sub": str(user_id), "session_id": str(session_id), "role": "authenticated"})
        await superuser.execute("select set_config('request.jwt.claims', $1, true)", claims)
        await superuser.execute("set local role authenticated")
        await superuser.execute("select api.create_workspace('Lab')")
        names = await superuser.fetch("select name from api.workspaces order by name")
        assert [row["name"] for row in names] == ["Lab", "Personal workspace"]
        assert await superuser.fetch("select * from api.usage_report()") == []
        assert len(await superuser.fetch("select * from api.limit_report()")) == 6
        await superuser.execute("select api.create_api_key('Nightly', $1, 'bt_live_…abcd')", "ab" * 32)
        await superuser.execute("set local role gateway_service")
        found = await superuser.fetchrow("select * from gateway.find_callers('{null}', $1, '{null}')", [b"\xab" * 32])
        assert found is not None
        assert (found["verdict"], found["user_id"]) == ("found", user_id)

    await superuser.execute("set role supabase_auth_admin")
    await superuser.execute("delete from auth.users where id = $1", user_id)
    await superuser.execute("reset role")
    assert await superuser.fetchval("select count(*) from api.workspaces") == 0
