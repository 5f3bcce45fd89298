"""`python -m llm_gateway`: the gateway alone, without the API, under granian.

BUTTRESS_GATEWAY_HOST (127.0.0.1), BUTTRESS_GATEWAY_PORT (8001), BUTTRESS_GATEWAY_WORKERS (1)
"""

from __future__ import annotations

import os
import socket
import sys

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server import Server

from core.settings import SettingsInvalid, load_settings
from llm_gateway.catalog import CatalogInvalid
from llm_gateway.catalog_load import load_catalog
from llm_gateway.content.rules import load_hooks
from llm_gateway.times import Times
from llm_gateway.worker_figures import shared_between_workers

# A worker that hangs is killed; one that stops in order is done before (times.py).
_KILL_AFTER_S = 30
_HEADERS_WITHIN_MS = 10_000


def main() -> int:
    """Serves until SIGTERM or SIGINT; the exit status is 0 then, 2 for a configuration that cannot be served."""
    try:
        # In this process, before any worker starts: a worker that cannot start would only be respawned.
        settings = load_settings()
        load_catalog(settings.models_file, os.environ)
        load_hooks(settings.content_hooks)
        Times.from_environment(os.environ).require_stop_within(_KILL_AFTER_S)
        host = os.environ.get("BUTTRESS_GATEWAY_HOST", "127.0.0.1")
        port = int(os.environ.get("BUTTRESS_GATEWAY_PORT", "8001"))
        _require_free(host, port)
        workers = int(os.environ.get("BUTTRESS_GATEWAY_WORKERS", "1"))
    except (SettingsInvalid, CatalogInvalid, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    with shared_between_workers(workers):
        _serve(host, port, workers)
    return 0


def _require_free(host: str, port: int) -> None:
    """It can be listened there: granian itself would say so with a backtrace. Raises: ValueError with a sentence."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"Nothing can listen on {host}:{port} (BUTTRESS_GATEWAY_HOST, BUTTRESS_GATEWAY_PORT): {error}."
        ) from error


def _serve(host: str, port: int, workers: int) -> None:
    Server(
        "llm_gateway.app:create_app",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=workers,
        workers_kill_timeout=_KILL_AFTER_S,
        respawn_failed_workers=True,
        log_access=False,
        websockets=False,
        # A client that sends nothing, or dribbles its headers, is cut. While it guesses the version, granian would wait
        # for the first byte without end, and a thousand silent connections are all it accepts.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADERS_WITHIN_MS),
    ).serve()


if __name__ == "__main__":
    sys.exit(main())
