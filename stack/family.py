"""The running parts of one stack: started, recorded in run.json, guarded by a lifeline, ended together."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Self

from stack import interrupts, postgres
from stack.config import ROOT, StackConfig
from stack.errors import StackError
from stack.lifeline import GRACE_S
from stack.locks import LOOK_S, try_lock
from stack.processes import Child, Identity, Part, end
from stack.run_state import RunState, read_run_state, write_run_state


class AlreadyRunning(StackError):
    """Another process runs the stack of this state folder."""


class Family:
    """Holds the state folder's lock from entry to exit: one stack a folder, and no process of it left behind."""

    def __init__(self, config: StackConfig) -> None:
        self._config = config
        self._children: dict[str, Child] = {}
        self._ready = False

    def __enter__(self) -> Self:
        with interrupts.deferred():
            lock = try_lock(self._config.lock_file, patience_s=LOOK_S)
            if lock is None:
                raise AlreadyRunning(f"The stack of {self._config.state_dir} is already running.")
            self._lock = lock
            end_leftovers(self._config)
            self._record()
            self._lifeline = self._start_lifeline()
        return self

    def __exit__(self, *_: object) -> None:
        with interrupts.ending():
            self.stop_all()
            self._config.run_file.unlink(missing_ok=True)
            self._lifeline.communicate()
            os.close(self._lock)

    def _start_lifeline(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-S", "-m", "stack.lifeline", str(self._config.run_file)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )

    @property
    def children(self) -> Mapping[str, Child]:
        return self._children

    def start(self, part: Part) -> Child:
        """The part runs and is recorded; one of the same name that has ended is replaced."""
        with interrupts.deferred():
            child = Child.start(part, cwd=ROOT)
            self._children[part.name] = child
            self._record()
        return child

    def stop(self, name: str) -> None:
        self._children.pop(name).stop()
        self._record()

    def stop_all(self) -> None:
        """The newest ends first, so that nothing loses what it stands on while it finishes its work."""
        for name in reversed(list(self._children)):
            self.stop(name)

    def mark_ready(self) -> None:
        self._ready = True
        self._record()

    def _record(self) -> None:
        supervisor = Identity.of(os.getpid())
        if supervisor is None:
            raise AssertionError("this process lives")
        parts = [child.record for child in self._children.values()]
        write_run_state(self._config.run_file, RunState(supervisor, self._ready, parts))


def end_leftovers(config: StackConfig) -> None:
    """What an earlier run left alive has ended; only processes proven to be its own are touched.

    For whoever holds the lock: without it, what another command starts meanwhile would look left over.
    """
    state = read_run_state(config.run_file)
    records = list(state.parts) if state is not None and not state.supervisor.is_alive() else []
    server = postgres.leftover(config)
    end([*records, *([server] if server else [])], grace_s=GRACE_S)
    config.run_file.unlink(missing_ok=True)
