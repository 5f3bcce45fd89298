"""The real Supabase CLI applies our migrations and goes on where `./buttress migrate` stopped, and the reverse."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from stack.config import ROOT
from stack.migrations import read_migrations
from stack.node import install_packages
from tests.support.scratch_database import dump_schema, scratch_database
from tests.support.stack import RunningStack

# The program comes inside a package of the registry, one for each platform; the registry had this one alone.
ON_THIS_PLATFORM = (platform.system(), platform.machine()) == ("Linux", "x86_64")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ON_THIS_PLATFORM, reason="the Supabase CLI is locked for Linux on x86_64 alone"),
]

PACKAGES = Path(__file__).parent / "supabase_cli"
VERSIONS = [migration.version for migration in read_migrations()]


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    install_packages(PACKAGES)


@pytest.fixture
async def database_url(stack: RunningStack) -> AsyncIterator[str]:
    async with scratch_database(stack) as url:
        yield url


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the CLI reads of the repository: it writes beside it, and not into the repository."""
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    (tmp_path / "supabase").mkdir()
    for name in ("config.toml", "seed.sql"):
        shutil.copy(ROOT / "supabase" / name, tmp_path / "supabase")
    shutil.copytree(ROOT / "supabase" / "templates", tmp_path / "supabase" / "templates")
    shutil.copy(ROOT / "supabase" / "migrations", tmp_path / "supabase", follow_symlinks=False)
    return tmp_path


def supabase(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {"HOME": str(project), "PGSSLMODE": "disable", "SUPABASE_TELEMETRY_DISABLED": "1", "DO_NOT_TRACK": "1"}
    program = PACKAGES / "node_modules" / "@supabase" / "cli-linux-x64" / "bin" / "supabase"
    return run([str(program), *arguments], project, {**os.environ, **settings})


def buttress(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "stack", "migrate", *arguments], ROOT, {**os.environ, "HOME": str(project)})


def run(command: list[str], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


async def history(database_url: str) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "select version, name from supabase_migrations.schema_migrations order by version"
        )
    finally:
        await connection.close()
    return [(row["version"], row["name"]) for row in rows]


EVERYTHING = [(migration.version, migration.name) for migration in read_migrations()]


async def test_what_the_cli_pushed_buttress_takes_back_and_applies_again(database_url: str, project: Path) -> None:
    pushed = supabase(project, "db", "push", f"--remote={database_url}", "--yes")
    assert pushed.returncode == 0, pushed.stderr
    assert await history(database_url) == EVERYTHING
    by_cli = await dump_schema(database_url)

    assert buttress(project, "status", "--database-url", database_url).returncode == 0
    down = buttress(project, "down", "--to", VERSIONS[1], "--allow-data-loss", "--database-url", database_url)
    assert down.returncode == 0, down.stderr
    assert await history(database_url) == EVERYTHING[:2]
    assert buttress(project, "status", "--database-url", database_url).returncode == 1

    up = buttress(project, "up", "--database-url", database_url)
    assert up.returncode == 0, up.stderr
    assert await history(database_url) == EVERYTHING
    assert await dump_schema(database_url) == by_cli


async def test_the_cli_goes_on_where_buttress_stopped(database_url: str, project: Path) -> None:
    assert buttress(project, "up", "--database-url", database_url).returncode == 0
    nothing_to_do = supabase(project, "db", "push", f"--remote={database_url}", "--yes")
    assert nothing_to_do.returncode == 0, nothing_to_do.stderr
    assert "Applying" not in nothing_to_do.stdout + nothing_to_do.stderr
    by_buttress = await dump_schema(database_url)

    down = buttress(project, "down", "--to", VERSIONS[3], "--allow-data-loss", "--database-url", database_url)
    assert down.returncode == 0, down.stderr
    pushed = supabase(project, "db", "push", f"--remote={database_url}", "--yes")
    assert pushed.returncode == 0, pushed.stderr
    assert await history(database_url) == EVERYTHING
    assert await dump_schema(database_url) == by_buttress


async def test_the_cli_seeds_people_to_look_at(database_url: str, project: Path) -> None:
    pushed = supabase(project, "db", "push", f"--remote={database_url}", "--yes", "--include-seed")
    assert pushed.returncode == 0, pushed.stderr
    connection = await asyncpg.connect(database_url)
    try:
        seed = (ROOT / "supabase" / "seed.sql").read_text()
        await connection.execute(seed)  # may be run again
        people = await connection.fetch("select display_name from api.profiles order by display_name")
        passwords = await connection.fetchval("select count(encrypted_password) from auth.users")
    finally:
        await connection.close()
    assert [row["display_name"] for row in people] == ["Ada Lovelace", "Charles Babbage"]
    assert passwords == 0


async def test_supabase_advisors_find_nothing_and_would(database_url: str, project: Path) -> None:
    advisors = ("db", "advisors", f"--remote={database_url}", "--fail-on", "warn", "-o", "json")
    assert buttress(project, "up", "--database-url", database_url).returncode == 0
    healthy = supabase(project, *advisors)
    assert healthy.returncode == 0, healthy.stdout

    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("alter table api.members disable row level security")
    finally:
        await connection.close()
    faulty = supabase(project, *advisors)
    assert faulty.returncode != 0
    assert "rls_disabled_in_public" in faulty.stdout
