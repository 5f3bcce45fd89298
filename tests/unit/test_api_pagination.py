"""Cursors and entity tags: what goes out comes back exactly, and nothing else is taken."""

import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.etag import etag, expected_version
from api.http.pagination import Page, Position, cut_page, decode_cursor, encode_cursor, seal, unseal
from core.errors import InvalidInput

MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS, st.uuids())
def test_a_position_survives_its_cursor_to_the_microsecond(moment: datetime, row_id: UUID) -> None:
    position = Position(moment, row_id)
    assert decode_cursor("things", encode_cursor("things", position)) == position


@given(MOMENTS, st.uuids())
def test_a_cursor_of_another_list_is_refused(moment: datetime, row_id: UUID) -> None:
    with pytest.raises(InvalidInput):
        decode_cursor("others", encode_cursor("things", Position(moment, row_id)))


@given(st.text(max_size=200))
def test_any_text_that_is_no_cursor_is_refused_and_nothing_worse(text: str) -> None:
    with pytest.raises(InvalidInput):
        decode_cursor("things", text)


@given(st.binary(max_size=60))
def test_any_bytes_inside_a_cursor_are_refused_and_nothing_worse(raw: bytes) -> None:
    forged = base64.urlsafe_b64encode(b"things|" + raw).decode().rstrip("=")
    with pytest.raises(InvalidInput):
        decode_cursor("things", forged)


def test_a_sealed_text_keeps_its_bars_and_refuses_control_characters() -> None:
    assert unseal("usage", seal("usage", "2026-11-21|local/smollm2|x")) == "2026-11-21|local/smollm2|x"
    with pytest.raises(InvalidInput):
        unseal("usage", seal("usage", "2026-11-21|a\x00b"))


def test_the_last_page_has_no_cursor() -> None:
    page = Page(limit=2, cursor=None, count_exactly=False)
    position = Position(datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1))
    assert cut_page([1, 2], page, "things", lambda _: position) == ([1, 2], None)
    shown, next_cursor = cut_page([1, 2, 3], page, "things", lambda _: position)
    assert shown == [1, 2]
    assert next_cursor is not None


@given(MOMENTS)
def test_a_version_survives_its_entity_tag(moment: datetime) -> None:
    assert expected_version(etag(moment)) == moment


def test_a_star_and_no_header_match_any_version() -> None:
    assert expected_version("*") is None
    assert expected_version(None) is None
