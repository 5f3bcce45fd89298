"""One line of JSON an event, with its request id and its causes, and no secret anywhere in it."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from core import redaction
from core.logging import configure_logging, get_logger
from core.redaction import MAX_TEXT_CHARS, protect
from core.request_id import request_id_var
from tests.support.token_forge import forge

module_logger = get_logger("made.at.import")


class Lines(io.BytesIO):
    def all(self) -> list[dict[str, Any]]:  # log lines hold anything
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def only(self) -> dict[str, Any]:
        (line,) = self.all()
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Captured lines; logging is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = Lines()
    configure_logging("INFO", stream=stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_a_line_says_when_what_where_and_for_which_request(lines: Lines) -> None:
    token = request_id_var.set("req_1")
    module_logger.info("slug_taken", slug="acme", attempt=2, ratio=0.5, nothing=None)
    request_id_var.reset(token)
    line = lines.only()
    assert datetime.fromisoformat(line.pop("at")).tzinfo is not None
    assert line == {
        "level": "info",
        "event": "slug_taken",
        "logger": "made.at.import",
        "request_id": "req_1",
        "slug": "acme",
        "attempt": 2,
        "ratio": 0.5,
        "nothing": None,
    }


def test_lines_below_the_level_are_not_written_and_the_level_can_change(lines: Lines) -> None:
    module_logger.debug("hidden")
    configure_logging("DEBUG", stream=lines)
    module_logger.debug("shown")
    configure_logging("ERROR", stream=lines)
    module_logger.warning("hidden")
    assert [line["event"] for line in lines.all()] == ["shown"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_every_level_is_named(lines: Lines, level: str) -> None:
    configure_logging("DEBUG", stream=lines)
    getattr(module_logger, level)("said")
    logging.getLogger("library").log(logging.getLevelNamesMapping()[level.upper()], "said")
    assert [line["level"] for line in lines.all()] == [level, level]


def test_without_a_stream_lines_go_to_standard_output(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    configure_logging()
    module_logger.info("hello")
    assert json.loads(stdout.buffer.getvalue())["event"] == "hello"


def test_a_reader_that_is_gone_takes_nobody_with_it(lines: Lines) -> None:
    lines.close()
    module_logger.info("hello")
    configure_logging("INFO", stream=Lines())


def test_bound_fields_are_on_every_line(lines: Lines) -> None:
    bound = module_logger.bind(workspace_id="w1")
    bound.info("a")
    bound.info("b")
    assert [line["workspace_id"] for line in lines.all()] == ["w1", "w1"]


def test_the_standard_library_ends_up_in_the_same_stream(lines: Lines) -> None:
    logging.getLogger("some.library").warning("took %d s, token=%s", 3, "abc")
    assert lines.only() | {"at": ""} == {
        "at": "",
        "level": "warning",
        "event": "took 3 s, token=[redacted]",
        "logger": "some.library",
        "request_id": None,
    }


def test_libraries_that_log_addresses_are_quiet(lines: Lines) -> None:
    logging.getLogger("httpx").info("GET https://x/?token=1")
    logging.getLogger("httpx").error("failed")
    assert lines.only()["event"] == "failed"


def test_a_warning_of_python_is_a_line(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging("INFO", stream=lines)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old" in lines.only()["event"]


def test_a_record_that_cannot_be_written_is_reported_not_raised(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    (ours,) = (handler for handler in logging.getLogger().handlers if type(handler).__module__ == "core.logging")
    ours.handle(logging.LogRecord("library", logging.WARNING, "x.py", 1, "%d", ("not a number",), None))
    assert lines.all() == []
    assert "not a number" in capsys.readouterr().err


def _raise_with_cause() -> None:
    raise ValueError("no answer") from ConnectionResetError("peer gone")


def test_an_exception_is_there_once_with_its_cause_and_on_one_line(lines: Lines) -> None:
    try:
        _raise_with_cause()
    except ValueError as error:
        module_logger.error("failed", exc_info=error)  # noqa: TRY400 (this is what is tested)
        module_logger.exception("failed")
        module_logger.warning("failed", exc_info=True)
        module_logger.warning("failed", exc_info=(type(error), error, None))
        logging.getLogger("library").exception("failed")
    for line in lines.all():
        assert line["exception"].count("ConnectionResetError: peer gone") == 1
        assert line["exception"].count("ValueError: no answer") == 1
        assert "test_core_logging.py" in line["exception"]
        assert "exc_info" not in line
    assert len(lines.all()) == 5


@pytest.mark.parametrize("nothing", [True, None, False, (None, None, None)])
def test_no_exception_is_no_field_worth_reading(lines: Lines, nothing: object) -> None:
    module_logger.info("fine", exc_info=nothing)
    assert not lines.only().get("exception")


def test_control_characters_never_reach_the_terminal(lines: Lines) -> None:
    nasty = "a\nb\rc\x1b[31md\x00e\x7ff\x9bg\u2028h\u202ei\u2066j\ufeff"
    module_logger.info(nasty, field=nasty, **{nasty: 1})
    raw = lines.getvalue()
    assert raw.count(b"\n") == 1
    assert raw.rstrip(b"\n").decode().isprintable()
    assert lines.only()["event"] == nasty
    assert lines.only()["field"] == nasty


def test_odd_values_are_written_oddly_rather_than_lost(lines: Lines) -> None:
    recursive: list[object] = []
    recursive.append(recursive)
    module_logger.info(
        "a", surrogate="\ud800", big=2**70, raw=b"\xff", secret_string=SecretStr("hunter22"), kind=ValueError
    )
    module_logger.info("b", keys={1: 2, None: 3}, where={"x"}, when=datetime(2026, 1, 1))  # noqa: DTZ001
    first, second = lines.all()
    assert first["surrogate"] == "\\ud800"
    assert first["big"] == str(2**70)
    assert first["raw"] == "\\xff"
    assert "hunter22" not in str(first)
    assert second["keys"] == {"1": 2, "None": 3}
    assert second["where"] == ["x"]


def test_endless_texts_are_cut(lines: Lines) -> None:
    module_logger.info("x", prompt="y" * 10**6)
    assert len(lines.getvalue()) < 2 * MAX_TEXT_CHARS


CANARY = "canary7Zx9Qm4Lw2"
HIDDEN: dict[str, dict[str, object]] = {
    "a JWT": {"value": forge()},
    "a JWT in a sentence": {"value": f"got {forge()}, refused"},
    "a JWT without its signature": {"value": forge().rpartition(".")[0]},
    "a JWT as bytes": {"value": forge().encode()},
    "a Supabase secret key": {"value": f"sb_secret_{CANARY}"},
    "a Supabase access token": {"value": f"sbp_{CANARY}"},
    "a Buttress key": {"value": f"bt_live_{CANARY}"},
    "an OpenAI key": {"value": f"sk-proj-{CANARY}"},
    "an Anthropic key": {"value": f"key: sk-ant-api03-{CANARY}-x_y"},
    "a webhook secret": {"value": f"v1,whsec_{CANARY}"},
    "a Google key": {"value": f"AIzaSy{CANARY}"},
    "a Groq key": {"value": f"(gsk_{CANARY})"},
    "a secret of the embedded stack": {"value": "embedded_" + "0123456789abcdef" * 2},
    "a bearer credential": {"value": f"Bearer {CANARY}"},
    "a bearer credential in lower case": {"value": f"header was bearer {CANARY}!"},
    "a basic credential": {"value": f"Basic {CANARY}=="},
    "a field called token": {"token": CANARY},
    "a field called access_token": {"access_token": CANARY},
    "a field called refreshToken": {"refreshToken": CANARY},
    "a field called password": {"password": CANARY},
    "a field called new-password": {"new-password": CANARY},
    "a field called Authorization": {"Authorization": CANARY},
    "a field called apikey": {"apikey": CANARY},
    "a field called x-api-key": {"x-api-key": CANARY},
    "a field called OPENAI_API_KEY": {"OPENAI_API_KEY": CANARY},
    "a field called set-cookie": {"set-cookie": f"a={CANARY}"},
    "a field called cookies": {"cookies": {"session": CANARY}},
    "a field called jwt_secret": {"jwt_secret": [CANARY]},
    "a field called database_url": {"database_url": f"postgresql://u:{CANARY}@h/d"},
    "a nested field": {"value": {"a": [{"b": {"password": CANARY}}]}},
    "a list of headers": {"headers": [("authorization", CANARY), ("accept", "*/*")]},
    "a list of raw headers": {"headers": [(b"x-api-key", CANARY.encode())]},
    "a tuple of dictionaries": {"value": ({"token": CANARY},)},
    "the password of a URL": {"value": f"could not connect to postgresql://me:{CANARY}@db:5432/x"},
    "a password in a DSN": {"value": f"host=db password={CANARY} user=x"},
    "a quoted password": {"value": f'"password": "two words {CANARY}"'},
    "an escaped JSON body": {"value": json.dumps(json.dumps({"password": f"two words {CANARY}"}))},
    "a token in a query": {"value": f"/callback?access_token={CANARY}&x=1"},
    "an authorization header in a text": {"value": f"authorization: Token {CANARY}" .replace("Token ", "")},
    "a dictionary key": {"value": {f"sk-live-{CANARY}": 1}},
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_no_secret_is_ever_written(lines: Lines, name: str) -> None:
    fields = HIDDEN[name]
    module_logger.info("event", **fields)
    module_logger.info(str(fields))
    module_logger.bind(**fields).warning("bound")
    logging.getLogger("library").warning("%s", fields)
    module_logger.error("raised", exc_info=ValueError(str(fields)))
    written = lines.getvalue()
    assert written.count(b"\n") == 5
    assert len(lines.all()) == 5
    for secret in (CANARY.encode(), forge().split(".")[1].encode()[:40], b"0123456789abcdef"):
        assert secret not in written
    assert b"[redacted]" in written


def test_counts_ids_and_prose_are_left_alone(lines: Lines) -> None:
    fields: dict[str, object] = {
        "input_tokens": 12,
        "max_token": 5,
        "has_password": True,
        "token": None,
        "code": "token_expired",
        "path": "/v1/auth/refresh-token/task-force-risk-averse",
        "text": "The embedded stack asks: is a basic answer enough? Bearer in mind.",
        "user_id": "0198c0de-0000-7000-8000-000000000001",
        "url": "http://127.0.0.1:54321/auth/v1",
        "request": "req_0123456789abcdef0123456789abcdef",
    }
    module_logger.info("usage", **fields)
    assert lines.only().items() >= fields.items()


def test_a_protected_value_is_redacted_whatever_it_looks_like(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_protected", set())
    protect('odd "quoted" é value', None, "short", "")
    module_logger.info("x", deep=[{"a": 'with odd "quoted" é value inside'}], other="short")
    assert lines.only()["deep"] == [{"a": "with [redacted] inside"}]
    assert lines.only()["other"] == "short"
