"""`status` and `logs`: what runs, and what it says."""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stack import http_probe
from stack.commands import Commands
from stack.config import StackConfig, load_config
from stack.errors import StackError
from stack.locks import is_locked
from stack.postgres import says_ready, superuser_url
from stack.processes import Record
from stack.run_state import read_run_state
from stack.secrets import load_or_make_secrets

_FOLLOW_EVERY_S = 0.2


@dataclass(frozen=True)
class ProcessStatus:
    name: str
    pid: int
    health: str  # ok | not answering | ended


@dataclass(frozen=True)
class StackStatus:
    """The shape of `status --json`. None where this stack has no such thing (yet)."""

    running: bool
    api_url: str
    gateway_url: str
    supabase_url: str
    publishable_key: str | None
    database_url: str | None
    processes: Sequence[ProcessStatus]

    def is_well(self) -> bool:
        return self.running and all(process.health == "ok" for process in self.processes)


def add_to(commands: Commands) -> None:
    status = commands.add_parser("status", help="what runs, how it does, and where it is found")
    status.add_argument("--json", action="store_true", help="for programs; carries the database password")
    status.set_defaults(run=run_status)
    logs = commands.add_parser("logs", help="what the parts have written")
    logs.add_argument("parts", nargs="*", metavar="part", help="postgres, supabase, llm, api or stack; all by default")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until Ctrl-C")
    logs.add_argument("--lines", "-n", type=int, default=50, help="how many lines of each to begin with (50)")
    logs.set_defaults(run=run_logs)


def run_status(options: argparse.Namespace) -> int:
    """0 where every part is well; 1 where one is not, or nothing runs."""
    status = look(load_config())
    print(json.dumps(asdict(status), indent=2) if options.json else _as_text(status))
    return 0 if status.is_well() else 1


def look(config: StackConfig) -> StackStatus:
    """What is true of the stack now; every part has been asked."""
    state = read_run_state(config.run_file) if is_locked(config.lock_file) else None
    records = state.parts if state is not None else ()
    embedded = not config.external_supabase and (config.state_dir / "secrets.json").exists()
    secrets = load_or_make_secrets(config.state_dir) if embedded else None
    return StackStatus(
        running=state is not None and state.is_up(),
        api_url=config.api_url,
        gateway_url=config.gateway_url,
        supabase_url=config.supabase_url,
        publishable_key=secrets.publishable_key if secrets else config.external_publishable_key,
        database_url=superuser_url(config, secrets) if secrets else None,
        processes=[ProcessStatus(record.name, record.identity.pid, _health(config, record)) for record in records],
    )


def _health(config: StackConfig, record: Record) -> str:
    if not record.identity.is_alive():
        return "ended"
    probes = {
        "postgres": lambda: says_ready(config, record.identity.pid),
        "supabase": lambda: http_probe.answers(config.supabase_port, "/health"),
        "llm": lambda: http_probe.answers(config.llm_port, "/health"),
        "api": lambda: http_probe.answers(config.api_port, "/health/ready"),
    }
    return "ok" if probes[record.name]() else "not answering"


def _as_text(status: StackStatus) -> str:
    if not status.processes:
        return "Nothing is running. `./buttress up` starts everything."
    lines = [f"{process.name:<10} {process.pid:>8}  {process.health}" for process in status.processes]
    urls = [("API", status.api_url), ("Gateway", status.gateway_url), ("Supabase", status.supabase_url)]
    lines += [f"{name:<10} {url}" for name, url in urls]
    return "\n".join(lines)


def run_logs(options: argparse.Namespace) -> int:
    files = _log_files(load_config(), options.parts)
    width = max(len(file.stem) for file in files)
    places = {file: file.stat().st_size for file in files}
    for file in files:
        for line in _last_lines(file, options.lines):
            print(f"{file.stem:<{width}} | {line}")
    if options.follow:
        for file, line in _follow(places):
            print(f"{file.stem:<{width}} | {line}")
    return 0


def _log_files(config: StackConfig, parts: Sequence[str]) -> list[Path]:
    found = {file.stem: file for file in sorted(config.logs_dir.glob("*.log"))}
    if not found:
        raise StackError(f"There are no logs in {config.logs_dir}: the stack has not run yet.")
    unknown = [part for part in parts if part not in found]
    if unknown:
        raise StackError(f"There is no log of {unknown[0]}; there are those of {', '.join(found)}.")
    return [found[part] for part in parts or found]


def _last_lines(file: Path, count: int) -> list[str]:
    lines = file.read_text(errors="replace").splitlines()
    return lines[max(len(lines) - count, 0) :]


def _follow(places: dict[Path, int]) -> Iterator[tuple[Path, str]]:
    """Whole lines as they are written; starts over where a log was set aside. Never ends by itself."""
    while True:
        for file, place in places.items():
            with file.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                places[file] = log.seek(place if place <= size else 0)
                for line in log:
                    if not line.endswith(b"\n"):
                        break
                    places[file] += len(line)
                    yield file, line.decode(errors="replace").rstrip("\n")
        time.sleep(_FOLLOW_EVERY_S)
