"""run.json: which processes make up the running stack, for `status`, `down` and whoever must clean up after a crash."""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stack.processes import Identity, Record


@dataclass(frozen=True)
class RunState:
    supervisor: Identity
    ready: bool
    parts: Sequence[Record]

    def is_up(self) -> bool:
        """Every part has answered, and whoever looks after them lives."""
        return self.ready and self.supervisor.is_alive()


def write_run_state(path: Path, state: RunState) -> None:
    """Whole or not at all, whoever reads meanwhile."""
    document = {
        "supervisor": {"pid": state.supervisor.pid, "started": state.supervisor.started},
        "ready": state.ready,
        "parts": [
            {
                "name": part.name,
                "pid": part.identity.pid,
                "started": part.identity.started,
                "stop_signal": part.stop_signal,
            }
            for part in state.parts
        ],
    }
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(document, indent=2))
    draft.replace(path)


def read_run_state(path: Path) -> RunState | None:
    """None where the stack never ran, was put down in order, or the file cannot be understood."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(path.read_text())
        supervisor = document["supervisor"]
        return RunState(
            supervisor=Identity(int(supervisor["pid"]), str(supervisor["started"])),
            ready=bool(document["ready"]),
            parts=[
                Record(
                    name=str(part["name"]),
                    identity=Identity(int(part["pid"]), str(part["started"])),
                    stop_signal=int(part["stop_signal"]),
                )
                for part in document["parts"]
            ],
        )
    return None
