"""Server-sent events as bytes: cut where they end, never rewritten.

Source: WHATWG HTML, "Server-sent events": an event ends with an empty line; a line ends with CRLF, LF or CR.
"""

from __future__ import annotations

import re
from typing import Final

# Atomic groups: a CRLF is one line end, and must not be read as CR plus LF when what follows is not another one.
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_LONGEST_END: Final = 4


class EventTooLarge(ValueError):
    """One event is larger than we hold in memory."""


class SseSplitter:
    """Whole events out of pieces that end anywhere; the events and the rest, joined, are the bytes that came in.

    Units: `max_event_bytes` bounds what is held back for an event that has not ended.
    """

    __slots__ = ("_held", "_max_event_bytes")

    def __init__(self, *, max_event_bytes: int) -> None:
        self._held = bytearray()
        self._max_event_bytes = max_event_bytes

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that are whole now, each with the empty line that ends it.

        Raises: EventTooLarge.
        """
        held = self._held
        if not held and piece.endswith(b"\n\n") and piece.find(b"\n\n") == len(piece) - 2 and b"\r" not in piece:
            if len(piece) > self._max_event_bytes:
                raise EventTooLarge
            return [piece]  # one event and nothing else, as providers send them: there is nothing to cut
        scan_from = max(0, len(held) - _LONGEST_END)
        held += piece
        events = []
        start = 0
        for end in [found.end() for found in _EVENT_END.finditer(held, scan_from)]:
            events.append(bytes(held[start:end]))
            start = end
        del held[:start]
        if len(held) > self._max_event_bytes:
            raise EventTooLarge
        return events

    def rest(self) -> bytes:
        """What came after the last whole event; it is held no longer."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


def event_data(event: bytes) -> bytes | None:
    """The event's data, its lines joined by a line feed; None for an event without any (a comment, say)."""
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2 and b"\r" not in event:
        return event[6:-2]  # what every provider sends, without a regular expression
    if event.startswith(b"event: ") and event.endswith(b"\n\n") and event.count(b"\n") == 3 and b"\r" not in event:
        name_end = event.index(b"\n") + 1  # Anthropic and OpenAI's responses name their events
        if event.startswith(b"data: ", name_end):
            return event[name_end + 6 : -2]
    lines = [line for line in _LINE_END.split(event) if line.startswith(b"data:")]
    if not lines:
        return None
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


def data_event(data: bytes) -> bytes:
    """An event that carries this data, which must be one line."""
    return b"data: " + data + b"\n\n"
