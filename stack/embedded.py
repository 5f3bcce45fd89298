"""PostgreSQL, the embedded Supabase and the migrations, brought up in order: the same for the CLI and for the tests."""

import asyncio
import os

import asyncpg

from stack import http_probe, migrations, node, postgres, supabase
from stack.config import DEFAULT_STATE_DIR, ROOT, StackConfig
from stack.errors import StackError
from stack.family import Family
from stack.progress import Progress
from stack.secrets import Secrets

_SUPABASE_TIMEOUT_S = 60.0


def make_state_dir(config: StackConfig) -> None:
    """The state folder exists and is ours; closed to other accounts, except that root's PostgreSQL may pass through.

    Raises: StackError where the folder cannot be made, read or written.
    """
    mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        for folder in (config.state_dir, config.logs_dir, config.storage_dir):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        if config.state_dir == DEFAULT_STATE_DIR:  # the launcher made it; any other that exists is somebody else's
            config.state_dir.chmod(mode)
    except FileExistsError as error:
        raise StackError(
            f"The state folder {config.state_dir} cannot be used: {error.filename} is a file. "
            "Set BUTTRESS_STATE to another folder."
        ) from error
    except OSError as error:
        raise StackError(
            f"The state folder {config.state_dir} cannot be used: {error.strerror}. "
            "Set BUTTRESS_STATE to another folder."
        ) from error
    if not os.access(config.state_dir, os.R_OK | os.W_OK | os.X_OK):
        raise StackError(
            f"The state folder {config.state_dir} may not be read and written by this account. "
            "Set BUTTRESS_STATE to another folder."
        )


def bring_up_database(config: StackConfig, secrets: Secrets, family: Family, progress: Progress) -> None:
    """PostgreSQL, PostgREST, Auth and Storage answer, every migration is applied, and the gateway's role can log in."""
    supabase.refuse_in_production()
    if not node.packages_are_current():
        with progress.step("Installing the embedded Supabase (Node packages)"):
            node.install_packages()
    if not (config.postgres_dir / "PG_VERSION").exists():
        with progress.step("Making PostgreSQL's data folder"):
            opened = postgres.prepare(config, secrets)
    else:
        opened = postgres.prepare(config, secrets)
    outside = [str(folder) for folder in opened if not folder.is_relative_to(ROOT)]
    if outside:
        progress.note(
            f"PostgreSQL has an account of its own, which may now pass through (not list) {', '.join(outside)}"
        )
    with progress.step("Starting PostgreSQL"):
        postgres.wait_until_ready(config, family.start(postgres.part(config)))
    with progress.step("Starting Supabase (PostgREST, Auth, Storage)"):
        server = family.start(supabase.part(config, secrets))
        http_probe.wait_until_answers(server, config.supabase_port, "/health", timeout_s=_SUPABASE_TIMEOUT_S)
    with progress.step("Applying migrations"):
        asyncio.run(_migrate(config, secrets))


async def _migrate(config: StackConfig, secrets: Secrets) -> None:
    url = postgres.superuser_url(config, secrets)
    await migrations.up(url)
    connection = await asyncpg.connect(url)
    try:
        await _let_gateway_in(connection, secrets)
    finally:
        await connection.close()


async def _let_gateway_in(connection: asyncpg.Connection, secrets: Secrets) -> None:
    """The role that the migrations make without a password has this folder's password."""
    exists = await connection.fetchval("select exists (select from pg_roles where rolname = 'gateway_service')")
    if exists:
        quoted = await connection.fetchval("select quote_literal($1::text)", secrets.gateway_service_password)
        await connection.execute(f"alter role gateway_service with password {quoted}")
