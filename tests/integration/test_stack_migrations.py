"""The migration runner on a real PostgreSQL: forward, back, whole or not at all, and one runner at a time."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from stack import migrations
from stack.errors import StackError
from stack.migrations import MigrationFailed
from tests.support.scratch_database import drop_database
from tests.support.stack import RunningStack, free_ports


@pytest.fixture
async def url(stack: RunningStack, database: asyncpg.Connection) -> AsyncIterator[str]:
    """An empty database of this test's own."""
    name = f"migrations_{secrets.token_hex(6)}"
    await database.execute(f"create database {name}")
    yield urlsplit(stack.database_url)._replace(path=f"/{name}").geturl()
    await drop_database(database, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two migrations with their reverses."""
    write(tmp_path, "20260101000000_first", "create table one (id int);", "drop table one;")
    write(tmp_path, "20260102000000_second", "create table two (id int);", "drop table two;")
    return tmp_path


def write(folder: Path, name: str, up: str, down: str | None = None) -> None:
    (folder / f"{name}.sql").write_text(up)
    if down is not None:
        (folder / "down").mkdir(exist_ok=True)
        (folder / "down" / f"{name}.sql").write_text(down)


async def query(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


async def tables(url: str) -> set[str]:
    return {row["tablename"] for row in await query(url, "select tablename from pg_tables where schemaname = 'public'")}


async def test_up_applies_in_order_and_keeps_the_history_of_the_supabase_cli(url: str, folder: Path) -> None:
    write(
        folder, "20260103000000_third_thing", "alter table two add column name text; insert into two values (1, 'x');"
    )
    (folder / "notes.sql").write_text("this is no migration")
    done = await migrations.up(url, folder)
    assert [migration.version for migration in done] == ["20260101000000", "20260102000000", "20260103000000"]
    rows = await query(url, "select version, name, statements from supabase_migrations.schema_migrations order by 1")
    assert [(row["version"], row["name"]) for row in rows][2] == ("20260103000000", "third_thing")
    assert "".join(rows[0]["statements"]) == "create table one (id int);"
    columns = await query(
        url,
        "select column_name, data_type, is_nullable from information_schema.columns "
        "where table_schema = 'supabase_migrations' order by ordinal_position",
    )
    assert [tuple(row) for row in columns] == [
        ("version", "text", "NO"),
        ("statements", "ARRAY", "YES"),
        ("name", "text", "YES"),
    ]


async def test_up_again_does_nothing(url: str, folder: Path) -> None:
    await migrations.up(url, folder)
    assert await migrations.up(url, folder) == []


async def test_up_goes_on_where_the_cli_stopped(url: str, folder: Path) -> None:
    await query(url, "create schema supabase_migrations")
    # What Supabase CLI 3.1 makes, written out rather than taken from the code under test.
    await query(
        url,
        "create table supabase_migrations.schema_migrations (version text primary key, statements text[], name text)",
    )
    await query(url, "insert into supabase_migrations.schema_migrations values ('20260101000000', '{}', 'first')")
    assert [migration.name for migration in await migrations.up(url, folder)] == ["second"]
    assert await tables(url) == {"two"}


async def test_refused_file_is_rolled_back_whole_and_what_came_before_stands(url: str, folder: Path) -> None:
    write(folder, "20260103000000_bad", "create table three (id int);\n\nselect no_such_column from three;")
    with pytest.raises(MigrationFailed, match=r'20260103000000_bad\.sql:3: column "no_such_column" does not exist'):
        await migrations.up(url, folder)
    assert await tables(url) == {"one", "two"}
    status = await migrations.status(url, folder)
    assert status.applied == ["20260101000000", "20260102000000"]
    assert [migration.name for migration in status.pending] == ["bad"]


async def test_file_that_ends_its_own_transaction_is_refused(url: str, folder: Path) -> None:
    write(folder, "20260103000000_commits", "create table three (id int); commit;")
    with pytest.raises(MigrationFailed, match="leave `begin` and `commit` to the runner"):
        await migrations.up(url, folder)


async def test_two_runners_at_once_apply_each_file_once(url: str, folder: Path) -> None:
    write(folder, "20260103000000_slow", "select pg_sleep(0.3); create table three (id int);")
    both = await asyncio.gather(*(migrations.up(url, folder) for _ in range(4)))
    applied = [migration.version for done in both for migration in done]
    assert sorted(applied) == ["20260101000000", "20260102000000", "20260103000000"]
    assert await tables(url) == {"one", "two", "three"}


async def test_what_one_file_sets_does_not_reach_the_next(url: str, folder: Path) -> None:
    write(folder, "20260103000000_sets", "set search_path = ''; set role pg_read_all_data;")
    write(folder, "20260104000000_after", "create table after (id int);")
    await migrations.up(url, folder)
    assert "after" in await tables(url)


async def test_down_reverses_the_newest_alone(url: str, folder: Path) -> None:
    await migrations.up(url, folder)
    assert [migration.name for migration in await migrations.down(url, folder=folder)] == ["second"]
    assert await tables(url) == {"one"}
    assert (await migrations.status(url, folder)).applied == ["20260101000000"]
    assert [migration.name for migration in await migrations.up(url, folder)] == ["second"]


async def test_down_to_a_version_keeps_that_version(url: str, folder: Path) -> None:
    write(folder, "20260103000000_third", "create table three (id int);", "drop table three;")
    await migrations.up(url, folder)
    done = await migrations.down(url, to="20260101000000", folder=folder)
    assert [migration.name for migration in done] == ["third", "second"]
    assert await tables(url) == {"one"}
    assert [migration.name for migration in await migrations.down(url, to="0", folder=folder)] == ["first"]
    assert await migrations.down(url, folder=folder) == []


async def test_down_to_a_version_that_is_not_applied_is_refused(url: str, folder: Path) -> None:
    await migrations.up(url, folder)
    with pytest.raises(StackError, match="Version 20251231 is not applied"):
        await migrations.down(url, to="20251231", folder=folder)


async def test_down_changes_nothing_where_one_reverse_is_missing(url: str, folder: Path) -> None:
    write(folder, "20260103000000_one_way", "create table three (id int);")
    await migrations.up(url, folder)
    with pytest.raises(StackError, match=r"20260103000000_one_way\.sql has no reverse"):
        await migrations.down(url, to="0", folder=folder)
    assert await tables(url) == {"one", "two", "three"}


async def test_down_of_a_version_without_a_file_is_refused(url: str, folder: Path) -> None:
    await migrations.up(url, folder)
    (folder / "20260102000000_second.sql").unlink()
    assert (await migrations.status(url, folder)).unknown == ["20260102000000"]
    with pytest.raises(StackError, match="Version 20260102000000 is applied, but no file"):
        await migrations.down(url, folder=folder)


async def test_reverse_that_loses_data_needs_to_be_agreed_to(url: str, folder: Path) -> None:
    write(
        folder,
        "20260103000000_names",
        "alter table one add name text;",
        "-- loses data: names.\nalter table one drop name;",
    )
    await migrations.up(url, folder)
    with pytest.raises(StackError, match=r"loses data: names\. Pass --allow-data-loss"):
        await migrations.down(url, folder=folder)
    assert len(await migrations.down(url, allow_data_loss=True, folder=folder)) == 1


async def test_refused_reverse_is_rolled_back_whole(url: str, folder: Path) -> None:
    write(folder, "20260103000000_third", "create table three (id int);", "drop table three; drop table missing;")
    await migrations.up(url, folder)
    with pytest.raises(MigrationFailed, match='"missing" does not exist'):
        await migrations.down(url, folder=folder)
    assert "three" in await tables(url)
    assert len((await migrations.status(url, folder)).applied) == 3


async def test_postgrest_is_told_to_read_the_schema_again(url: str, folder: Path) -> None:
    listener = await asyncpg.connect(url)
    told: asyncio.Queue[object] = asyncio.Queue()
    await listener.add_listener("pgrst", lambda *call: told.put_nowait(call[3]))
    await migrations.up(url, folder)
    assert await asyncio.wait_for(told.get(), timeout=60) == "reload schema"
    await migrations.down(url, folder=folder)
    assert await asyncio.wait_for(told.get(), timeout=60) == "reload schema"
    await listener.close()


async def test_status_of_an_untouched_database_changes_nothing(url: str, folder: Path) -> None:
    status = await migrations.status(url, folder)
    assert (len(status.applied), len(status.pending)) == (0, 2)
    assert await query(url, "select 1 from pg_namespace where nspname = 'supabase_migrations'") == []


async def test_two_files_of_one_version_are_refused(folder: Path) -> None:
    write(folder, "20260101000000_twin", "select 1;")
    with pytest.raises(StackError, match="have the same version"):
        migrations.read_migrations(folder)


async def test_database_that_is_not_there_is_said_in_a_sentence(folder: Path) -> None:
    with pytest.raises(StackError, match="The database cannot be reached"):
        await migrations.up(f"postgresql://nobody:x@127.0.0.1:{free_ports(1)[0]}/x", folder)


async def test_wrong_password_is_said_in_a_sentence(stack: RunningStack, folder: Path) -> None:
    url = stack.database_url.replace(stack.secrets.postgres_password, "wrong")
    with pytest.raises(StackError, match=r"cannot be reached: password authentication failed"):
        await migrations.up(url, folder)
