"""Server-sent events, wherever the network cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.wire.sse import EventTooLarge, SseSplitter, data_event, event_data

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.binary(max_size=40).filter(lambda line: b"\n" not in line and b"\r" not in line)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Events with one kind of line end each, and perhaps something unfinished behind them."""
    stream = b""
    for _ in range(draw(st.integers(0, 6))):
        end = draw(LINE_ENDS)
        lines = draw(st.lists(st.one_of(LINES.filter(bool), LINES.map(b"data: ".__add__)), min_size=1, max_size=4))
        stream += end.join(lines) + end + end
    return stream + draw(LINES)


@st.composite
def cut(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The bytes in pieces that end anywhere, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]


@given(streams(), st.data())
def test_events_and_rest_joined_are_the_bytes_that_came(stream: bytes, data: st.DataObject) -> None:
    splitter = SseSplitter(max_event_bytes=1 << 20)
    events = [event for piece in data.draw(cut(stream)) for event in splitter.feed(piece)]
    assert b"".join(events) + splitter.rest() == stream


@given(st.lists(LINES, max_size=8), st.data())
def test_where_the_pieces_end_does_not_matter(contents: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(data_event(content) for content in contents)
    splitter = SseSplitter(max_event_bytes=1 << 20)
    events = [event for piece in data.draw(cut(stream)) for event in splitter.feed(piece)]
    assert [event_data(event) for event in events] == contents
    assert splitter.rest() == b""


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_ends_an_event(end: bytes) -> None:
    splitter = SseSplitter(max_event_bytes=100)
    assert splitter.feed(b"data: a" + end + end + b"data: b" + end) == [b"data: a" + end + end]


def test_a_crlf_is_one_line_end() -> None:
    assert SseSplitter(max_event_bytes=100).feed(b"data: a\r\ndata: b\r\n") == []


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: one\n\n", b"one"),
        (b"data:one\n\n", b"one"),
        (b"data: one\r\n\r\n", b"one"),
        (b"event: x\ndata: one\ndata: two\n\n", b"one\ntwo"),
        (b": a comment\n\n", None),
        (b"\n\n", None),
        (b"data:\n\n", b""),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data


def test_an_event_that_never_ends_is_not_held_for_ever() -> None:
    splitter = SseSplitter(max_event_bytes=100)
    splitter.feed(b"data: " + b"x" * 90)
    with pytest.raises(EventTooLarge):
        splitter.feed(b"x" * 90)
