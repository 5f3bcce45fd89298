"""A request id is the caller's own only when it is safe to repeat, and sorts by time when it is ours."""

from __future__ import annotations

import re

import pytest

from core.request_id import accept_request_id, new_request_id

OURS = re.compile(r"req_[0-9a-f]{32}")


def test_new_ids_are_unique_and_of_one_form() -> None:
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(OURS.fullmatch(request_id) for request_id in ids)


def test_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for milliseconds in (1, 255, 256, 10**12):
        monkeypatch.setattr("time.time_ns", lambda ms=milliseconds: ms * 1_000_000)
        made.append(new_request_id())
    assert made == sorted(made)


@pytest.mark.parametrize("own", ["req_0123abcd", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", "A" * 64, "trace.1_2-3"])
def test_a_safe_id_of_the_caller_is_kept(own: str) -> None:
    assert accept_request_id(own) == own


@pytest.mark.parametrize(
    "own",
    [
        None,
        "",
        "short",
        "A" * 65,
        "has space1",
        "line\nfeed12",
        "quote'1234",
        "\x1b[31mred123",
        "é23456789",
        "-leading1",
        "a/../../b1",
        "12345678\n",
    ],
)
def test_any_other_is_replaced(own: str | None) -> None:
    assert OURS.fullmatch(accept_request_id(own))
