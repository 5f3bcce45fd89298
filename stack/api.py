"""The API with the gateway mounted in it, under granian, as a part of the stack."""

import os
import sys

from stack.config import HOST, StackConfig
from stack.processes import Part

DRAIN_S = 30


def part(config: StackConfig, environment: dict[str, str]) -> Part:
    """`environment`: the BUTTRESS_* variables of the service; they win over the caller's own."""
    return Part(
        name="api",
        command=[
            sys.executable,
            "-m",
            "granian",
            "--interface=asgi",
            "--factory",
            f"--host={HOST}",
            f"--port={config.api_port}",
            "--workers=1",
            f"--workers-kill-timeout={DRAIN_S}",  # by default granian waits for open streams without end
            "--http=1",  # while it guesses the version, granian waits for the first byte without end
            "--http1-header-read-timeout=10000",  # milliseconds; a client that dribbles its headers is cut
            "--loop=uvloop",
            "--no-access-log",  # the services write their own, with request ids
            "api.app:create_app",
        ],
        environ={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        log_file=config.logs_dir / "api.log",
        grace_s=DRAIN_S + 5.0,
    )
