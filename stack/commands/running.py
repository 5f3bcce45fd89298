"""`up`, `down` and `dev`: the stack's beginning and end."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from stack import embedded, supabase
from stack.commands import Commands
from stack.config import ROOT, StackConfig, load_config
from stack.errors import StackError
from stack.family import Family, end_leftovers
from stack.greeting import greeting
from stack.interrupts import StopRequested
from stack.locks import LOOK_S, is_locked, try_lock
from stack.processes import Identity, wait_until_gone
from stack.progress import Progress
from stack.run_state import read_run_state
from stack.secrets import load_or_make_secrets
from stack.source_watch import SourceWatch
from stack.supervisor import Supervisor, bring_up

_DOWN_TIMEOUT_S = 60.0
_POLL_S = 0.05
_LARGEST_LOG_BYTES = 10_000_000


def add_to(commands: Commands) -> None:
    up = commands.add_parser("up", help="start everything and stay until Ctrl-C")
    up.add_argument("--detach", "-d", action="store_true", help="return as soon as everything is ready")
    up.add_argument("--in-background", action="store_true", help=argparse.SUPPRESS)  # what --detach starts
    up.set_defaults(run=run_up)
    commands.add_parser("dev", help="up, and start the API again whenever its source changes").set_defaults(run=run_dev)
    commands.add_parser("down", help="end everything; the data stays").set_defaults(run=run_down)


def run_up(options: argparse.Namespace) -> int:
    config = _usable_config()
    _outlive_the_killed(config)
    if is_locked(config.lock_file):
        return _already_running(config)
    if options.detach:
        return _start_in_background(config)
    return _run(config, watch=None, in_background=options.in_background)


def run_dev(_options: argparse.Namespace) -> int:
    config = _usable_config()
    _outlive_the_killed(config)
    if is_locked(config.lock_file):
        raise StackError("The stack is already running. End it with `./buttress down`, then run `./buttress dev`.")
    return _run(config, watch=SourceWatch(), in_background=False)


def run_down(_options: argparse.Namespace) -> int:
    config = load_config()
    if not config.state_dir.is_dir():
        print("Nothing is running.")
        return 0
    was_running = is_locked(config.lock_file)
    if was_running:
        _end_supervisor(config)
    lock = try_lock(config.lock_file, patience_s=LOOK_S)
    if lock is not None:  # else somebody has started it again
        end_leftovers(config)
        os.close(lock)
    print("Everything has ended; the data stays." if was_running else "Nothing is running.")
    return 0


def _usable_config() -> StackConfig:
    config = load_config()
    if not config.external_supabase:
        supabase.refuse_in_production()
    embedded.make_state_dir(config)
    return config


def _outlive_the_killed(config: StackConfig) -> None:
    """A supervisor that was killed holds no lock any more: the kernel takes it a moment after the signal."""
    state = read_run_state(config.run_file)
    if state is not None and state.supervisor.is_ending():
        wait_until_gone(state.supervisor, _DOWN_TIMEOUT_S)


def _already_running(config: StackConfig) -> int:
    state = read_run_state(config.run_file)
    if state is None or not state.is_up():
        raise StackError("Another `./buttress` is starting or ending this stack at the moment.")
    print("The stack is already running.")
    print(greeting(config, load_or_make_secrets(config.state_dir)))
    return 0


def _run(config: StackConfig, *, watch: SourceWatch | None, in_background: bool) -> int:
    """Returns once somebody asked for the end and every part has ended."""
    progress = Progress()
    secrets = load_or_make_secrets(config.state_dir)
    _set_large_logs_aside(config.logs_dir)
    try:
        with Family(config) as family:
            bring_up(config, secrets, family, progress)
            print(greeting(config, secrets), flush=True)
            if in_background:
                _leave_terminal(config.logs_dir / "stack.log")
            else:
                print("\nCtrl-C ends everything; `./buttress logs -f` in another terminal shows what happens.")
            Supervisor(family, progress, watch=watch).run()
    except StopRequested:
        progress.note("Everything has ended; the data stays.")
    return 0


def _start_in_background(config: StackConfig) -> int:
    """The stack is ready and belongs to no terminal; or it failed, and its own words have said why."""
    child = subprocess.Popen(
        [sys.executable, "-m", "stack", "up", "--in-background"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if child.stdout is None:
        raise AssertionError("asked for a pipe")
    try:
        while words := os.read(child.stdout.fileno(), 4096):
            sys.stdout.buffer.write(words)
            sys.stdout.buffer.flush()
    except StopRequested:
        child.terminate()
        child.wait()
        raise
    state = read_run_state(config.run_file)
    if state is not None and state.ready and state.supervisor.pid == child.pid:
        return 0
    return child.wait() or 1


def _leave_terminal(log_file: Path) -> None:
    """Whoever waits at the other end of stdout sees it close; from here on the words go to the log."""
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.close(descriptor)


def _end_supervisor(config: StackConfig) -> None:
    """Whoever held the lock has been asked to end, as soon as run.json said who, and has ended."""
    asked: Identity | None = None
    deadline = time.monotonic() + _DOWN_TIMEOUT_S
    while is_locked(config.lock_file) and (asked is None or asked.is_alive()):
        state = read_run_state(config.run_file)
        if asked is None and state is not None and state.supervisor.is_alive():
            asked = state.supervisor
            with contextlib.suppress(ProcessLookupError):
                os.kill(asked.pid, signal.SIGTERM)
        if time.monotonic() > deadline:
            if asked is None:
                raise StackError(f"Somebody holds {config.lock_file}, but {config.run_file} does not say who.")
            raise StackError(f"The stack (process {asked.pid}) did not end within {_DOWN_TIMEOUT_S:.0f} s.")
        time.sleep(_POLL_S)
    if asked is not None:
        wait_until_gone(asked, deadline - time.monotonic())  # it lets go of the lock a moment before its end


def _set_large_logs_aside(folder: Path) -> None:
    for log in folder.glob("*.log"):
        if log.stat().st_size > _LARGEST_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
