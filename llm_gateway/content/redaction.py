"""Texts without the personal data in them, whether it stands in one text or begins in one and ends in another."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final

from llm_gateway.content.held_text import HeldText, Search
from llm_gateway.content.personal_data import PLACEHOLDERS, Found, Kind, find, replaced
from llm_gateway.content.steps import Steps, at_once

# About a millisecond of searching at worst; with what is looked at again at its end, a sixth more.
_SLICE_CHARACTERS: Final = 2048


class Redaction:
    """Rewrites texts (`texts.Rewriting`). `kinds`: how many pieces of each kind were taken out so far."""

    def __init__(self) -> None:
        self.kinds: Counter[Kind] = Counter()

    def text(self, text: str) -> Steps[str]:
        """The text with a placeholder for each piece of personal data."""
        if len(text) <= _SLICE_CHARACTERS:
            yield
            found = find(text)
            self.kinds.update(one.kind for one in found)
            return replaced(text, found)
        held, before, passed = HeldText(), self.kinds.total(), []
        for piece in slices(text):
            yield
            passed.append(self._counted(held.feed(piece)))
        passed.append(self._counted(held.flush()))
        return text if self.kinds.total() == before else "".join(passed)

    def across(self, texts: Sequence[str]) -> Steps[list[str]]:
        """The texts, read as one, without what begins in one of them and ends in another."""
        joined, seams = "".join(texts), list(accumulate(map(len, texts)))
        search, found = Search(), []
        for piece in slices(joined):
            yield
            found += [one for one in search.feed(piece) if _crosses(one, seams)]
        found += [one for one in search.end() if _crosses(one, seams)]
        self.kinds.update(one.kind for one in found)
        return [_part(joined, begins, ends, found) for begins, ends in pairwise([0, *seams])] if found else list(texts)

    def _counted(self, released: tuple[str, list[Kind]]) -> str:
        text, kinds = released
        self.kinds.update(kinds)
        return text


def slices(text: str) -> Iterator[str]:
    """The text in pieces that are searched in one step each."""
    for start in range(0, len(text), _SLICE_CHARACTERS):
        yield text[start : start + _SLICE_CHARACTERS]


def redact(text: str) -> tuple[str, Mapping[Kind, int]]:
    """The text with a placeholder for each piece, and how many there were of each kind."""
    redaction = Redaction()
    return at_once(redaction.text(text)), redaction.kinds


def _crosses(one: Found, seams: list[int]) -> bool:
    """A text ends within it."""
    following = bisect_right(seams, one.start)
    return following < len(seams) and seams[following] < one.end


def _part(joined: str, begins: int, ends: int, found: list[Found]) -> str:
    """joined[begins:ends] with the placeholders of what begins there, and nothing of what began before."""
    first = bisect_right(found, begins, key=lambda one: one.end)
    pieces, done = [], begins
    for one in found[first:]:
        if one.start >= ends:
            break
        pieces.append(joined[done : max(done, one.start)])
        if one.start >= begins:
            pieces.append(PLACEHOLDERS[one.kind])
        done = min(one.end, ends)
    return "".join([*pieces, joined[done:ends]])
