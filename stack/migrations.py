"""Migrations forward and back on any PostgreSQL, with the history table of the Supabase CLI.

Either tool can go on where the other stopped: both read and write supabase_migrations.schema_migrations, and take the
files of migrations/ whose names match `<digits>_<what>.sql`. A file and its row of history are one transaction.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from stack.config import ROOT
from stack.errors import StackError

MIGRATIONS_DIR = ROOT / "migrations"
_FILE_NAME = re.compile(r"([0-9]+)_(.*)\.sql")  # the CLI's own pattern
_LOSES_DATA = re.compile(r"--.*\b(data loss|los(?:es|e|ing) data)\b", re.IGNORECASE)
_LOCK_KEY = 7_236_045_311_906_215_034  # any number nobody else uses, for one runner at a time

# The statements the Supabase CLI makes its history with (supabase/cli, pkg/migration/history.go).
_MAKE_HISTORY = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
alter table supabase_migrations.schema_migrations add column if not exists statements text[];
alter table supabase_migrations.schema_migrations add column if not exists name text;
"""


class MigrationFailed(StackError):
    """One file was refused by the database; nothing of that file happened, all before it stands."""


@dataclass(frozen=True)
class Migration:
    version: str
    name: str
    file: Path

    @property
    def down_file(self) -> Path:
        return self.file.parent / "down" / self.file.name


@dataclass(frozen=True)
class Status:
    """Every version known to the files or to the database, oldest first."""

    applied: Sequence[str]
    pending: Sequence[Migration]
    unknown: Sequence[str]  # applied, without a file


def read_migrations(folder: Path = MIGRATIONS_DIR) -> list[Migration]:
    """The folder's migrations in the order of their versions. Raises: StackError where two share a version."""
    found: dict[str, Migration] = {}
    for file in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            continue
        migration = Migration(match[1], match[2], file)
        if migration.version in found:
            raise StackError(f"{found[migration.version].file.name} and {file.name} have the same version.")
        found[migration.version] = migration
    return sorted(found.values(), key=lambda migration: migration.version)


async def status(database_url: str, folder: Path = MIGRATIONS_DIR) -> Status:
    """What has been applied and what has not; changes nothing."""
    connection = await _connect(database_url)
    try:
        exists = await connection.fetchval("select to_regclass('supabase_migrations.schema_migrations') is not null")
        applied = await _applied(connection) if exists else []
    finally:
        await connection.close()
    migrations = read_migrations(folder)
    versions = {migration.version for migration in migrations}
    return Status(
        applied=applied,
        pending=[migration for migration in migrations if migration.version not in applied],
        unknown=[version for version in applied if version not in versions],
    )


async def up(database_url: str, folder: Path = MIGRATIONS_DIR) -> list[Migration]:
    """Every migration of the folder is applied; returns those that were not before.

    Raises: MigrationFailed at the first file the database refuses.
    """
    migrations = read_migrations(folder)
    connection = await _connect(database_url)
    try:
        await _make_history(connection)
        return [migration for migration in migrations if await _apply(connection, migration)]
    finally:
        await connection.close()


async def down(
    database_url: str, *, to: str | None = None, allow_data_loss: bool = False, folder: Path = MIGRATIONS_DIR
) -> list[Migration]:
    """The newest migration is reversed, or every one newer than version `to`; returns them, newest first.

    Raises: StackError before anything is changed where a reverse is missing, or would lose data that nobody agreed to
    lose; MigrationFailed at the first file the database refuses.
    """
    by_version = {migration.version: migration for migration in read_migrations(folder)}
    before = await status(database_url, folder)
    if to is not None and to != "0" and to not in before.applied:
        raise StackError(f"Version {to} is not applied, so there is no way down to it. `migrate status` lists them.")
    newest_first = sorted(before.applied, reverse=True)
    chosen = newest_first[:1] if to is None else [version for version in newest_first if version > to]
    plan = [_reversible(by_version.get(version), version, allow_data_loss=allow_data_loss) for version in chosen]
    connection = await _connect(database_url)
    try:
        return [migration for migration in plan if await _reverse(connection, migration)]
    finally:
        await connection.close()


def _reversible(migration: Migration | None, version: str, *, allow_data_loss: bool) -> Migration:
    if migration is None:
        raise StackError(f"Version {version} is applied, but no file of migrations/ has it, so it cannot be reversed.")
    if not migration.down_file.is_file():
        raise StackError(f"{migration.file.name} has no reverse: {migration.down_file} does not exist.")
    first_line = migration.down_file.read_text().partition("\n")[0]
    if _LOSES_DATA.match(first_line) and not allow_data_loss:
        reason = first_line.lstrip("- ")
        raise StackError(f"{migration.down_file.name}: {reason} Pass --allow-data-loss to reverse it all the same.")
    return migration


async def _connect(database_url: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(database_url, timeout=10, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StackError(f"The database cannot be reached: {str(error) or type(error).__name__}") from error


async def _make_history(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await _lock(connection)
        await connection.execute("set local client_min_messages = warning")
        await connection.execute(_MAKE_HISTORY)


async def _lock(connection: asyncpg.Connection) -> None:
    """Bound to the transaction, not the session: a transaction pooler may sit between."""
    await connection.execute("select pg_advisory_xact_lock($1)", _LOCK_KEY)


async def _applied(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("select version from supabase_migrations.schema_migrations order by version")
    return [row["version"] for row in rows]


async def _is_applied(connection: asyncpg.Connection, migration: Migration) -> bool:
    query = "select exists (select from supabase_migrations.schema_migrations where version = $1)"
    return bool(await connection.fetchval(query, migration.version))


async def _apply(connection: asyncpg.Connection, migration: Migration) -> bool:
    """False where another runner had applied it by the time it was this one's turn."""
    async with connection.transaction():
        await _lock(connection)
        if await _is_applied(connection, migration):
            return False
        text = await _run(connection, migration.file)
        await connection.execute(
            "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)",
            migration.version,
            migration.name,
            [text],
        )
        await connection.execute("notify pgrst, 'reload schema'")
    return True


async def _reverse(connection: asyncpg.Connection, migration: Migration) -> bool:
    async with connection.transaction():
        await _lock(connection)
        if not await _is_applied(connection, migration):
            return False
        await _run(connection, migration.down_file)
        await connection.execute(
            "delete from supabase_migrations.schema_migrations where version = $1", migration.version
        )
        await connection.execute("notify pgrst, 'reload schema'")
    return True


async def _run(connection: asyncpg.Connection, file: Path) -> str:
    """The file's text, all of which the database has executed inside the open transaction."""
    text = await asyncio.to_thread(file.read_text)
    try:
        await connection.execute(text)
    except asyncpg.PostgresError as error:
        raise MigrationFailed(f"{_place(file, text, error)}: {error}. Nothing of this file was kept.") from error
    if not connection.is_in_transaction():
        raise MigrationFailed(f"{file.name} ends its own transaction; leave `begin` and `commit` to the runner.")
    await connection.execute("reset role; reset all")  # what one file sets must not reach the next
    return text


def _place(file: Path, text: str, error: asyncpg.PostgresError) -> str:
    """`file.sql:12` where the server says at which character it stopped."""
    position = getattr(error, "position", None)
    if not position:
        return file.name
    return f"{file.name}:{text.count(chr(10), 0, int(position) - 1) + 1}"
