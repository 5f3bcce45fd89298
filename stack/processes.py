"""Child processes that say who they are, so that only what the stack itself started is ever signalled."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stack.errors import PartFailed
from stack.interrupts import is_urgent
from stack.system_user import SystemUser

_POLL_S = 0.02


@dataclass(frozen=True)
class Identity:
    """One process for all time: a number is given again, a number with its start time is not."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """None where no such process lives (one that has ended but was not reaped yet does not live)."""
        started = _linux_start(pid) if sys.platform == "linux" else _ps_start(pid)
        return None if started is None else cls(pid, started)

    def is_alive(self) -> bool:
        return Identity.of(self.pid) == self


def _linux_start(pid: int) -> str | None:
    """Clock ticks after boot, with the boot's own id: unmoved by changes of the clock."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[19]}"


def _ps_start(pid: int) -> str | None:
    done = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C"},
    )
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


@dataclass(frozen=True)
class Record:
    """What must be known to end a process that another one started."""

    name: str
    identity: Identity
    stop_signal: int

    def signal(self, number: int) -> None:
        """The process and its whole group were signalled, if it is still the one recorded."""
        if self.identity.is_alive():
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(self.identity.pid, number)
                else:
                    os.kill(self.identity.pid, number)


def end(records: Sequence[Record], *, grace_s: float) -> None:
    """None of the recorded processes lives; those that outlived `grace_s` were killed with their groups."""
    for record in records:
        record.signal(record.stop_signal)
    _wait_until_gone(records, grace_s)
    for record in records:
        record.signal(signal.SIGKILL)
    _wait_until_gone(records, 5.0)


def _wait_until_gone(records: Sequence[Record], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(record.identity.is_alive() for record in records) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


@dataclass(frozen=True)
class Part:
    """One part of the stack as it is to be started."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    log_file: Path
    user: SystemUser | None = None
    stop_signal: int = signal.SIGTERM
    grace_s: float = 10.0


class Child:
    """A running part, leader of a session and a process group of its own."""

    def __init__(self, part: Part, process: subprocess.Popen[bytes]) -> None:
        self.part = part
        self.process = process
        identity = Identity.of(process.pid)
        self.record = Record(part.name, identity or Identity(process.pid, "ended"), int(part.stop_signal))

    @classmethod
    def start(cls, part: Part, *, cwd: Path) -> Self:
        """The part runs with its output appended to its log file."""
        part.log_file.parent.mkdir(parents=True, exist_ok=True)
        with part.log_file.open("ab") as log:
            process = subprocess.Popen(
                part.command,
                cwd=cwd,
                env=dict(part.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=part.user.uid if part.user else None,
                group=part.user.gid if part.user else None,
                extra_groups=[] if part.user else None,
            )
        return cls(part, process)

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def require_running(self) -> None:
        """Raises: PartFailed with the exit code and the end of the log, where it has ended."""
        code = self.exit_code()
        if code is not None:
            raise PartFailed(f"{self.part.name} {describe_exit(code)}.{log_tail(self.part.log_file)}")

    def stop(self) -> None:
        """The process has ended, and with it everything it left in its group.

        It gets its grace to do so by itself, unless somebody asks a second time.
        """
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(self.part.stop_signal)
        deadline = time.monotonic() + self.part.grace_s
        while self.process.poll() is None and time.monotonic() < deadline and not is_urgent():
            time.sleep(_POLL_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def describe_exit(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def log_tail(path: Path, *, lines: int = 15) -> str:
    """The last lines of a log, indented, led by its path; empty where there is none."""
    try:
        tail = path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    if not tail:
        return ""
    return f" The end of {path}:\n" + "\n".join(f"    {line}" for line in tail)
