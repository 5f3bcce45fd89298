"""Databases of a test's own, in the stack's cluster: prepared like a fresh Supabase project, without our migrations."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from stack.node import node_environ, node_path
from stack.postgres import programs_dir
from stack.supabase import SERVER
from tests.support.stack import RunningStack

# roles belong to the cluster, so pg_dump leaves them out
_ROLE = """
select r.rolcanlogin, r.rolinherit, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolbypassrls,
       s.setconfig, shobj_description(r.oid, 'pg_authid')
from pg_roles as r left join pg_db_role_setting as s on s.setrole = r.oid
where r.rolname = 'gateway_service'
"""


@asynccontextmanager
async def scratch_database(stack: RunningStack) -> AsyncIterator[str]:
    """The superuser's URL of an empty Supabase database, dropped at the end."""
    name = f"scratch_{uuid4().hex}"
    admin = await asyncpg.connect(stack.database_url)
    try:
        await admin.execute(f"create database {name} template template0")
        try:
            url = urlunsplit(urlsplit(stack.database_url)._replace(path=f"/{name}"))
            await _run([str(node_path()), str(SERVER), "bootstrap"], environ={**node_environ(), "SUPABASE_DB_URL": url})
            yield url
        finally:
            await drop_database(admin, name)
    finally:
        await admin.close()


async def drop_database(admin: asyncpg.Connection, name: str) -> None:
    """The database is gone. PostgreSQL gives those it throws out 5 s, which a busy machine may outlast."""
    while True:
        try:
            await admin.execute(f"drop database if exists {name} with (force)")
        except asyncpg.ObjectInUseError:
            continue
        return


async def dump_schema(database_url: str) -> str:
    """Everything the database is made of but its rows: objects, owners, grants, policies, comments, and our role.

    The same text for the same schema. The migrations' own history is left out.
    """
    dump = await _run(
        [
            str(programs_dir() / "pg_dump"),
            f"--dbname={database_url}",
            "--schema-only",
            "--exclude-schema=supabase_migrations",
        ]
    )
    connection = await asyncpg.connect(database_url)
    try:
        role = await connection.fetchrow(_ROLE)
    finally:
        await connection.close()
    # pg_dump guards its output with a random word
    return re.sub(r"^\\(un)?restrict .*$", "", dump, flags=re.MULTILINE) + f"\n-- gateway_service: {role}\n"


async def _run(command: list[str], environ: dict[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stdout.decode()
