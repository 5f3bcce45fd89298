"""Whoever reads of a failure on another machine needs what the services said."""

from pathlib import Path

from tests.support.service_logs import sizes, written_since


def test_only_what_was_logged_meanwhile_is_shown(tmp_path: Path) -> None:
    for name in ("api", "gateway"):
        (tmp_path / f"{name}.log").write_text("before\n")
    before = sizes(tmp_path)
    with (tmp_path / "gateway.log").open("a") as log:
        log.write("what went wrong\n")
    (tmp_path / "spare.log").write_text("begun\n")
    assert list(written_since(before, tmp_path)) == [
        ("gateway.log meanwhile", "what went wrong\n"),
        ("spare.log meanwhile", "begun\n"),
    ]


def test_of_a_long_log_the_end_is_shown(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_text("early " * 10_000 + "late")
    [(_, shown)] = written_since({}, tmp_path)
    assert shown.endswith("early late")
    assert len(shown) == 10_000
