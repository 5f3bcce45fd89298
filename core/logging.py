"""JSON log lines, one a line, each with its request id, none with a secret.

`log = get_logger(__name__)`, then `log.info("slug_taken", workspace_id=…)`: the event is a fact in snake_case, all else
are fields. The standard library's loggers (asyncio's, granian's, litellm's) end up in the same stream and shape.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, cast

import orjson
import structlog

from core.redaction import redact_fields, redact_line
from core.request_id import request_id_var

# Libraries whose INFO lines repeat our own, or hold addresses with tokens in their query.
_QUIET_LIBRARIES: Final = ("httpx", "httpcore", "aiohttp.access", "LiteLLM", "litellm", "asyncio", "hpack")
# JSON leaves these as they are, terminals and viewers do not: C1 controls, line separators, bidirectional overrides.
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")

_Event = MutableMapping[str, Any]  # structlog's own type for what a caller may log: anything


class _Sink:
    """Where the lines go. One object for good, so that loggers made earlier follow a later `configure_logging`."""

    def __init__(self) -> None:
        self.stream: BinaryIO | None = None
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        stream = self.stream or sys.stdout.buffer
        try:
            with self._lock:
                stream.write(line + b"\n")
                stream.flush()
        except (OSError, ValueError):
            pass  # a reader that is gone must not take the service with it


_sink: Final = _Sink()


class _Writer:
    """What a structlog logger wraps: it knows its module's name and hands lines on."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def write(self, line: bytes) -> None:
        _sink.write(line)

    debug = info = warning = error = critical = write  # structlog calls the level's name


def configure_logging(level: str = "INFO", *, stream: BinaryIO | None = None) -> None:
    """From here on every log line, structlog's and the standard library's, goes to `stream` (stdout) as JSON."""
    _sink.stream = stream
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[_line],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Writer,
        cache_logger_on_first_use=False,  # loggers made at import follow a later call; costs 1.5 µs a line
    )
    root = logging.getLogger()
    root.handlers = [_StandardLibraryHandler()]
    root.setLevel(number)
    logging.captureWarnings(capture=True)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger for one module; cheap to make, follows `configure_logging` whenever that is called."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(name))


class _StandardLibraryHandler(logging.Handler):
    """Lines of the standard library's loggers, in our shape."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: _Event = {"logger": record.name, "event": record.getMessage(), "level": record.levelname.lower()}
            if record.exc_info:
                event["exc_info"] = record.exc_info[1]
            _sink.write(render(event))
        except Exception:  # noqa: BLE001 (logging's own contract: a bad record is reported, never raised)
            self.handleError(record)


def render(event: _Event) -> bytes:
    """One line of JSON, without its line feed: control characters escaped, secrets taken out, causes included."""
    error = event.pop("exc_info", None)
    line: dict[str, object] = {
        "level": event.pop("level", "info"),
        "event": event.pop("event", ""),
        "logger": event.pop("logger", ""),
        "request_id": request_id_var.get(),
        **event,
    }
    if error:
        line["exception"] = _traceback(error)
    return _printable(redact_line(_encoded({"at": datetime.now(UTC), **redact_fields(line)})))


def _line(logger: _Writer, level: str, event: _Event) -> bytes:
    """structlog's last processor."""
    event["level"], event["logger"] = level, logger.name
    return render(event)


def _traceback(error: object) -> str:
    """The whole chain of causes with file and line, without local variables, whatever form `exc_info` came in."""
    if isinstance(error, tuple):
        error = error[1]
    elif not isinstance(error, BaseException):
        error = sys.exc_info()[1]
    if not isinstance(error, BaseException):
        return ""
    return "".join(traceback.format_exception(error))


def _encoded(line: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        # Lone surrogates, integers beyond 64 bits, objects that contain themselves: rare, and better odd than lost.
        return orjson.dumps({name: _plain(value) for name, value in line.items()}, option=orjson.OPT_UTC_Z)


def _plain(value: object) -> object:
    if isinstance(value, datetime) or value is None:
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()


def _printable(line: bytes) -> bytes:
    if line.isascii() and b"\x7f" not in line:
        return line
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line.decode()).encode()
