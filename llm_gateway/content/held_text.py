"""A text that comes in pieces, passed on as soon as no personal data can begin in what is held back."""

from __future__ import annotations

import re
from typing import Final

from llm_gateway.content.personal_data import LONGEST, PLACEHOLDERS, Found, Kind, find

# Read backwards from the end: what may yet become an address, or a number.
_OPEN_ADDRESS: Final = re.compile(r"(?:[\w.-]{0,255}(?:@|04%|\uff20))?[\w.%+'\u2019-]{0,64}")
_OPEN_NUMBER: Final = re.compile(r"[\d \u00a0\u2007\u202f.()/+\u2010-\u2015-]{0,48}")


class HeldText:
    """`feed` and `flush` give what may be passed on, redacted; joined, they are the whole text, redacted.

    At most LONGEST characters are held back, and as many are remembered, because a word before a number decides.
    """

    __slots__ = ("_open", "_passed")

    def __init__(self) -> None:
        self._passed = ""
        self._open = ""

    def feed(self, piece: str) -> tuple[str, list[Kind]]:
        """What this piece made certain, and the kinds of what was taken out of it."""
        self._open += piece
        whole = self._passed + self._open
        found = find(whole)
        certain = len(whole) - _open_characters(whole)
        for one in found:
            if one.start < certain <= one.end:  # it may go on, or be something longer
                certain = one.start
        return self._release(whole, found, max(certain, len(self._passed)))

    def flush(self) -> tuple[str, list[Kind]]:
        """The rest: no more pieces come."""
        whole = self._passed + self._open
        return self._release(whole, find(whole), len(whole))

    def _release(self, whole: str, found: list[Found], certain: int) -> tuple[str, list[Kind]]:
        pieces, kinds, done = [], [], len(self._passed)
        for one in found:
            if done < one.end <= certain:
                pieces += [whole[done : max(done, one.start)], PLACEHOLDERS[one.kind]]
                kinds.append(one.kind)
                done = one.end
        pieces.append(whole[done:certain])
        self._passed = whole[max(0, certain - LONGEST) : certain]
        self._open = whole[certain:]
        return "".join(pieces), kinds


def _open_characters(text: str) -> int:
    """How many characters at the end could be the beginning of something."""
    backwards = text[: -LONGEST - 1 : -1]
    address = _OPEN_ADDRESS.match(backwards)
    number = _OPEN_NUMBER.match(backwards)
    return max(len(address[0]) if address else 0, len(number[0].rstrip()) if number else 0)
