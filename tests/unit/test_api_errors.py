"""What the log gets of a refusal: its cause once, where there is one to be found."""

import io
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog
from litestar.testing import RequestFactory

from api.health.service import NotReady
from api.http.errors import on_known_error
from core.errors import ButtressError, InternalFault, NotFound, Unavailable
from core.logging import configure_logging


@pytest.fixture
def log() -> Iterator[io.BytesIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.BytesIO()
    configure_logging("INFO", stream=stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def caused(error: ButtressError) -> ButtressError:
    error.__cause__ = ConnectionRefusedError("the database")
    return error


@pytest.mark.parametrize(
    ("error", "with_traceback"),
    [
        (NotReady(), False),
        (Unavailable(), False),
        (caused(Unavailable()), True),
        (InternalFault(), True),
    ],
    ids=["not ready", "unavailable without a cause", "unavailable with its cause", "a fault of ours"],
)
def test_a_failure_is_one_line_with_a_traceback_where_it_tells_something(
    log: io.BytesIO, error: ButtressError, with_traceback: bool
) -> None:
    on_known_error(RequestFactory().get(), error)
    (line,) = log.getvalue().splitlines()
    entry = orjson.loads(line)
    assert (entry["event"], entry["code"]) == ("request_failed", error.code)
    assert any("Traceback" in str(value) or "errors." in str(value) for value in entry.values()) is with_traceback


def test_a_refusal_that_is_the_callers_fault_is_not_logged_as_a_failure(log: io.BytesIO) -> None:
    on_known_error(RequestFactory().get(), NotFound())
    assert log.getvalue() == b""
