"""Child processes that say who they are, so that only what the stack itself started is ever signalled."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stack.config import ROOT
from stack.errors import PartFailed
from stack.interrupts import is_urgent
from stack.system_user import SystemUser

_ON_LINUX = platform.system() == "Linux"  # has /proc; elsewhere ps is asked
_POLL_S = 0.02
_LONGEST_QUOTED = 300  # characters of one log line
_KILL_S = 30.0  # how long the kernel may take to end what was killed

# Fields of /proc/PID/stat from the state on, see proc(5).
_STATE, _GROUP, _FLAGS, _THREADS, _STARTED, _PENDING = 0, 2, 6, 17, 19, 28
_PF_EXITING = 0x4  # Linux, include/linux/sched.h


@dataclass(frozen=True)
class Identity:
    """One process for all time: a number is given again, a number with its start time is not."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """None where no such process lives: it has ended with all its threads, and is at most not reaped yet."""
        started = _linux_start(pid) if _ON_LINUX else _ps_start(pid)
        return None if started is None else cls(pid, started)

    def is_alive(self) -> bool:
        return Identity.of(self.pid) == self

    def is_ending(self) -> bool:
        """It does nothing any more, but lives: what it held, it may hold for a moment yet."""
        return self.is_alive() and _is_ending(self.pid)


def _linux_start(pid: int) -> str | None:
    """Clock ticks after boot, with the boot's own id: unmoved by changes of the clock."""
    fields = _linux_stat(pid)
    if not _lives(fields):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[_STARTED]}"


def _lives(fields: Sequence[str]) -> bool:
    """The main thread may be a zombie while others, not gone yet, hold the process's files and ports."""
    return bool(fields) and (fields[_STATE] not in "ZX" or int(fields[_THREADS]) > 1)


def _linux_stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5)); empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _ps_start(pid: int) -> str | None:
    state, _, started = _ps(["-o", "stat=,lstart=", "-p", str(pid)]).strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def _ps(arguments: Sequence[str]) -> str:
    done = subprocess.run(["/bin/ps", *arguments], capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
    return done.stdout


def group_members(group: int) -> list[int]:
    """The living processes of one process group."""
    if _ON_LINUX:
        rows = ((int(folder.name), _linux_stat(int(folder.name))) for folder in Path("/proc").glob("[0-9]*"))
        return [pid for pid, fields in rows if _lives(fields) and int(fields[_GROUP]) == group]
    lines = [line.split() for line in _ps(["-A", "-o", "pid=,pgid="]).splitlines()]
    return [int(pid) for pid, pgid in lines if int(pgid) == group]


def command_line(pid: int) -> str:
    """The process's arguments, separated by spaces; empty where there is no such process."""
    if _ON_LINUX:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""
    return _ps(["-o", "command=", "-p", str(pid)]).strip()


def _is_ours(pid: int) -> bool:
    """Started from this copy of Buttress: whoever else was given the number of a group was not.

    Whatever is ending counts too: it has lost its command line, but not yet its files and ports.
    """
    command = command_line(pid)
    return str(ROOT) in command or sys.executable in command or _is_ending(pid)


def _is_ending(pid: int) -> bool:
    if _ON_LINUX:
        fields = _linux_stat(pid)
        killed = 1 << (signal.SIGKILL - 1)  # and has not noticed
        return not fields or bool(int(fields[_FLAGS]) & _PF_EXITING or int(fields[_PENDING]) & killed)
    state = _ps(["-o", "stat=", "-p", str(pid)])
    return not state or "E" in state


@dataclass(frozen=True)
class Record:
    """What must be known to end a process that another one started."""

    name: str
    identity: Identity
    stop_signal: int

    def stop(self) -> None:
        """The process was asked to end, if it is still the one recorded."""
        if self.identity.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.identity.pid, self.stop_signal)

    def kill(self) -> None:
        """The process and its group were killed; where it has ended already, what it left in its group."""
        if self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.identity.pid, signal.SIGKILL)

    def survivors(self) -> list[int]:
        """The living processes of its group. Once the leader is gone, only if they too are this copy of Buttress."""
        leader = Identity.of(self.identity.pid)
        members = group_members(self.identity.pid)
        if leader is None:
            return members if all(_is_ours(pid) for pid in members) else []
        return members if leader == self.identity else []


def end(records: Sequence[Record], *, grace_s: float) -> None:
    """None of the recorded processes lives; those that outlived `grace_s` were killed with their groups."""
    for record in records:
        record.stop()
    _wait(lambda: not any(record.identity.is_alive() for record in records), grace_s)
    for record in records:
        record.kill()
    _wait(lambda: not any(record.survivors() for record in records), _KILL_S)


def wait_until_gone(identity: Identity, timeout_s: float) -> None:
    """This process has ended, or that time is over."""
    _wait(lambda: not identity.is_alive(), timeout_s)


def _wait(is_over: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_over() and time.monotonic() < deadline:
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
        _wait(lambda: not self.record.survivors(), _KILL_S)  # killed is not yet gone


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
    return f" The end of {path}:\n" + "\n".join(f"    {_cut(line)}" for line in tail)


def _cut(line: str) -> str:
    """A JSON line can carry a whole traceback; the log has the rest."""
    return line if len(line) <= _LONGEST_QUOTED else line[:_LONGEST_QUOTED] + " …"
