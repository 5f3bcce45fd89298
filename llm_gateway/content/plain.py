"""A text as a person reads it: without what nobody sees, and with the usual sign where an unusual one looks the same.

Source: Unicode 16, Default_Ignorable_Code_Point, and the blocks of full-width and small forms.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from typing import Final

# Zero-width spaces and joiners, soft hyphens, marks of direction, variation selectors, tags …
_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U000e0000-\U000e0fff]+"
)
_LOOKS_LIKE: Final = {
    **dict.fromkeys("\uff20\ufe6b", "@"),
    **dict.fromkeys("\uff0e\ufe52\u2024", "."),
    **dict.fromkeys("\uff0b\ufe62", "+"),
    **dict.fromkeys("\uff0d\ufe63\ufe58\u2212\u2043", "-"),
    **dict.fromkeys("\uff3f", "_"),
    **dict.fromkeys("\uff05\ufe6a", "%"),
    **dict.fromkeys("\uff08\ufe59", "("),
    **dict.fromkeys("\uff09\ufe5a", ")"),
    **dict.fromkeys("\uff0f\u2044\u2215", "/"),
    **dict.fromkeys("\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a\u205f\u3000", " "),
}
_UNUSUAL: Final = re.compile(rf"[{re.escape(''.join(_LOOKS_LIKE))}]|(?![0-9])\d")  # the digits of every script


class Plain:
    """`text` is what is read; `begin` and `end` say where a stretch of it is in the text as it was written."""

    __slots__ = ("_at", "_before", "text")

    def __init__(self, written: str) -> None:
        self._at: list[int] = []  # in what is read, where something invisible was …
        self._before: list[int] = [0]  # … and how many such characters were there by then
        if written.isascii():
            self.text = written
            return
        for unseen in _INVISIBLE.finditer(written):
            self._at.append(unseen.start() - self._before[-1])
            self._before.append(self._before[-1] + unseen.end() - unseen.start())
        visible = _INVISIBLE.sub("", written) if self._at else written
        self.text = _UNUSUAL.sub(_usual, visible)

    def begin(self, start: int) -> int:
        """Where the character that is read at `start` was written."""
        return start + self._before[bisect_right(self._at, start)]

    def end(self, end: int) -> int:
        """Where the last character before `end` ends: what is invisible behind it stays."""
        return self.begin(end - 1) + 1


def _usual(sign: re.Match[str]) -> str:
    return _LOOKS_LIKE.get(sign[0]) or str(unicodedata.decimal(sign[0]))
