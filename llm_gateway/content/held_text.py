"""A text that comes in pieces, passed on as soon as no personal data can begin in what is held back."""

from __future__ import annotations

import re
from typing import Final

from llm_gateway.content.personal_data import LONGEST, Found, Kind, find, find_in, replaced
from llm_gateway.content.plain import Plain

# Read backwards from the end: what may yet become an address, or a number.
_OPEN_ADDRESS: Final = re.compile(r"(?:[\w.-]{0,255}(?:@|04%))?[\w.%+'\u2019-]{0,64}")
_OPEN_NUMBER: Final = re.compile(r"[\d \u00a0\u2007\u202f.()/+\u2010-\u2015-]{0,48}")
# With invisible characters in between. Nobody writes a thousand of them; whoever does is not waited for.
_MOST_HELD: Final = 4 * LONGEST


class Search:
    """Personal data in a text that comes in pieces: the same as in the whole of it, each as soon as it is certain.

    `certain` is how many characters of the text nothing can change any more. As many as LONGEST before that are
    remembered, because a word before a number decides.
    """

    __slots__ = ("_begins", "_kept", "certain")

    def __init__(self) -> None:
        self.certain = 0
        self._kept = ""
        self._begins = 0

    def feed(self, piece: str) -> list[Found]:
        """What this piece made certain; places are those in the whole text."""
        whole = self._kept + piece
        plain = Plain(whole)
        found = find_in(plain)
        certain = _open_from(plain, len(whole))
        for one in found:
            if one.start < certain <= one.end:  # it may go on, or be something longer
                certain = one.start
        return self._until(max(certain, len(whole) - _MOST_HELD), whole, found)

    def end(self) -> list[Found]:
        """The rest: no more pieces come."""
        return self._until(len(self._kept), self._kept, find(self._kept))

    def _until(self, certain: int, whole: str, found: list[Found]) -> list[Found]:
        done = self.certain - self._begins
        certain = max(certain, done)
        known = [
            Found(one.kind, self._begins + max(done, one.start), self._begins + one.end)
            for one in found
            if done < one.end <= certain
        ]
        self.certain = self._begins + certain
        forgotten = max(0, certain - LONGEST)
        self._kept = whole[forgotten:]
        self._begins += forgotten
        return known


class HeldText:
    """`feed` and `flush` give what may be passed on, redacted; joined, they are the whole text, redacted."""

    __slots__ = ("_done", "_open", "_search")

    def __init__(self) -> None:
        self._search = Search()
        self._open = ""
        self._done = 0

    def feed(self, piece: str) -> tuple[str, list[Kind]]:
        """What this piece made certain, and the kinds of what was taken out of it."""
        self._open += piece
        return self._release(self._search.feed(piece))

    def flush(self) -> tuple[str, list[Kind]]:
        """The rest: no more pieces come."""
        return self._release(self._search.end())

    def _release(self, found: list[Found]) -> tuple[str, list[Kind]]:
        certain, done = self._search.certain - self._done, self._done
        here = [Found(one.kind, one.start - done, one.end - done) for one in found]
        passed = replaced(self._open[:certain], here)
        self._open = self._open[certain:]
        self._done = self._search.certain
        return passed, [one.kind for one in found]


def _open_from(plain: Plain, length: int) -> int:
    """Where what could be the beginning of something begins, in the text as it was written."""
    backwards = plain.text[: -LONGEST - 1 : -1]
    address = _OPEN_ADDRESS.match(backwards)
    number = _OPEN_NUMBER.match(backwards)
    characters = max(len(address[0]) if address else 0, len(number[0].rstrip()) if number else 0)
    return plain.begin(len(plain.text) - characters) if characters else length
