"""`migrate up`, `migrate down` and `migrate status`, on the local stack or on any PostgreSQL."""

import argparse
import asyncio

from stack import migrations
from stack.commands import Commands
from stack.config import load_config
from stack.errors import StackError
from stack.locks import is_locked
from stack.postgres import superuser_url
from stack.secrets import load_or_make_secrets


def add_to(commands: Commands) -> None:
    migrate = commands.add_parser("migrate", help="move a database's schema forward or back")
    actions = migrate.add_subparsers(required=True, metavar="up|down|status")
    up = actions.add_parser("up", help="apply every migration that is not applied yet")
    up.set_defaults(run=run_up)
    down = actions.add_parser("down", help="reverse the newest migration")
    down.add_argument("--to", metavar="VERSION", help="reverse every migration newer than VERSION; 0 reverses all")
    down.add_argument("--allow-data-loss", action="store_true", help="also where a reverse says that it loses data")
    down.set_defaults(run=run_down)
    status = actions.add_parser("status", help="list what is applied and what is not")
    status.set_defaults(run=run_status)
    for action in (up, down, status):
        action.add_argument("--database-url", metavar="URL", help="any PostgreSQL; the local stack's by default")


def run_up(options: argparse.Namespace) -> int:
    done = asyncio.run(migrations.up(_database_url(options)))
    for migration in done:
        print(f"applied   {migration.file.name}")
    if not done:
        print("Every migration was applied already.")
    return 0


def run_down(options: argparse.Namespace) -> int:
    plan = migrations.down(_database_url(options), to=options.to, allow_data_loss=options.allow_data_loss)
    done = asyncio.run(plan)
    for migration in done:
        print(f"reversed  {migration.file.name}")
    if not done:
        print("There was nothing to reverse.")
    return 0


def run_status(options: argparse.Namespace) -> int:
    """0 where everything is applied, 1 where something is pending or unknown."""
    status = asyncio.run(migrations.status(_database_url(options)))
    names = {migration.version: migration.file.name for migration in migrations.read_migrations()}
    for version in status.applied:
        print(f"applied   {names.get(version, f'{version} (no file in migrations/ has this version)')}")
    for migration in status.pending:
        print(f"pending   {migration.file.name}")
    return 1 if status.pending or status.unknown else 0


def _database_url(options: argparse.Namespace) -> str:
    if options.database_url:
        return str(options.database_url)
    config = load_config()
    if config.external_supabase:
        raise StackError("BUTTRESS_SUPABASE_URL points to a Supabase of your own: pass its database as --database-url.")
    if not is_locked(config.lock_file):
        raise StackError("The local stack is not running. Start it with `./buttress up`, or pass --database-url.")
    return superuser_url(config, load_or_make_secrets(config.state_dir))
