"""Each migration goes up, and its reverse takes back exactly that."""

import shutil
from collections.abc import AsyncIterator
from difflib import unified_diff
from pathlib import Path

import asyncpg
import pytest

from stack import migrations
from stack.migrations import MIGRATIONS_DIR, read_migrations
from tests.support.scratch_database import dump_schema, scratch_database
from tests.support.stack import RunningStack


@pytest.fixture
async def database_url(stack: RunningStack) -> AsyncIterator[str]:
    async with scratch_database(stack) as url:
        yield url


def difference(before: str, after: str) -> str:
    return "\n".join(unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1))


def without_role(dump: str) -> str:
    """The role stays after the way down, because the stack's own database, in the same cluster, uses it."""
    return "\n".join(line for line in dump.splitlines() if not line.startswith("-- gateway_service:"))


async def test_up_down_up_leaves_the_same_schema(database_url: str) -> None:
    empty = await dump_schema(database_url)
    applied = await migrations.up(database_url)
    first = await dump_schema(database_url)
    reversed_ = await migrations.down(database_url, to="0", allow_data_loss=True)
    emptied = await dump_schema(database_url)
    await migrations.up(database_url)
    second = await dump_schema(database_url)

    assert reversed_ == applied[::-1] == read_migrations()[::-1]
    assert difference(without_role(empty), without_role(emptied)) == ""
    assert difference(first, second) == ""
    assert first != empty


@pytest.mark.slow
async def test_each_migration_is_reversed_by_its_own_reverse(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "down").mkdir()
    before = await dump_schema(database_url)
    for migration in read_migrations():
        shutil.copy(migration.file, tmp_path)
        shutil.copy(migration.down_file, tmp_path / "down")
        await migrations.up(database_url, folder=tmp_path)
        after = await dump_schema(database_url)
        await migrations.down(database_url, allow_data_loss=True, folder=tmp_path)
        assert difference(without_role(before), without_role(await dump_schema(database_url))) == "", migration.name
        await migrations.up(database_url, folder=tmp_path)
        assert difference(after, await dump_schema(database_url)) == "", migration.name
        before = after


async def test_people_who_signed_up_before_the_migrations_get_their_place(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("insert into auth.users (id, email) values (gen_random_uuid(), 'early@example.com')")
        await migrations.up(database_url)
        rows = await connection.fetch(
            "select display_name, is_personal, role from api.profiles join api.workspaces on created_by = profiles.id "
            "join api.members on workspace_id = workspaces.id and user_id = profiles.id"
        )
        assert [tuple(row) for row in rows] == [("early", True, "owner")]
    finally:
        await connection.close()


async def test_migrations_refuse_a_database_that_is_not_supabase(stack: RunningStack, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("drop schema auth cascade")
    finally:
        await connection.close()
    with pytest.raises(migrations.MigrationFailed, match=r"not a Supabase database: the tables auth.users and"):
        await migrations.up(database_url)


def test_every_migration_has_a_reverse_and_every_reverse_a_migration() -> None:
    names = {migration.file.name for migration in read_migrations()}
    assert {file.name for file in (MIGRATIONS_DIR / "down").glob("*.sql")} == names


def test_no_migration_has_a_name_the_supabase_cli_skips() -> None:
    assert not [file.name for file in MIGRATIONS_DIR.glob("*_init.sql")]
    assert all(len(migration.version) == 14 for migration in read_migrations())
