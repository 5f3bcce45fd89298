"""`reset`: the next `up` begins with empty data and new secrets."""

import argparse
import shutil
import sys

from stack.commands import Commands
from stack.commands.running import run_down
from stack.config import StackConfig, load_config
from stack.errors import StackError

# Named one by one: the state folder may have been pointed at a folder with other things in it.
_FOLDERS = ("postgres", "postgres.new", "storage", "logs")
_FILES = ("mailbox.jsonl", "secrets.json", "run.json")


def add_to(commands: Commands) -> None:
    reset = commands.add_parser("reset", help="end everything and delete all data, after asking")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    reset.set_defaults(run=run_reset)


def run_reset(options: argparse.Namespace) -> int:
    config = load_config()
    if not options.yes and not _agrees(config):
        print("Nothing was deleted.")
        return 1
    run_down(options)
    _delete(config)
    print("All data is deleted; `./buttress up` begins again.")
    return 0


def _agrees(config: StackConfig) -> bool:
    if not sys.stdin.isatty():
        raise StackError("`reset` deletes all data and nobody is there to ask. Pass --yes if that is what you want.")
    answer = input(f"Delete the database, the files, the mail and the secrets in {config.state_dir}? [y/N] ")
    return answer.strip().lower() in {"y", "yes"}


def _delete(config: StackConfig) -> None:
    for name in _FOLDERS:
        shutil.rmtree(config.state_dir / name, ignore_errors=True)
    for name in _FILES:
        (config.state_dir / name).unlink(missing_ok=True)
