"""Ends the parts of a stack whose supervisor is gone, however it went: `python -m stack.lifeline RUN_FILE`.

Its standard input is a pipe whose other end only the supervisor holds. The kernel closes that end when the supervisor
ends, even by SIGKILL, on Linux and macOS alike; whatever run.json then still names is ended (docs/decisions/0021).
Imports the standard library and its neighbours only, so that it is up before anything it must guard.
"""

import math
import signal
import sys
from pathlib import Path

from stack.processes import end, wait_until_gone
from stack.run_state import read_run_state

GRACE_S = 10.0


def main(run_file: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    state = read_run_state(run_file)  # an orderly end has removed it
    if state is None:
        return
    wait_until_gone(state.supervisor, math.inf)  # the pipe closes a moment before the process is gone
    end(state.parts, grace_s=GRACE_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
