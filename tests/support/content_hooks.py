"""Rules about content as an operator may write them, for tests of where they are asked."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from llm_gateway.content.hooks import About, Body, ContentDenied, ContentHook, StreamFilter


class ForbidsAWord(ContentHook):
    """The word that nobody may ask for, and another one that nobody may be answered."""

    name = "forbids_a_word"

    async def before(self, about: About, body: Body) -> Body | None:
        if "forbidden-question" in str(body):
            raise ContentDenied("This question is not allowed here.")
        if "please-shout" in str(body):
            return {**body, "messages": [{"role": "user", "content": "SHOUT"}]}
        return None

    async def after(self, about: About, answer: Body) -> Body | None:
        if "forbidden-answer" in str(answer):
            raise ContentDenied("This answer is not allowed here.")
        return None

    def stream(self, about: About) -> StreamFilter | None:
        return _ForbidsIt()


class _ForbidsIt:
    def __init__(self) -> None:
        self._seen = b""

    def feed(self, piece: bytes) -> bytes:
        self._seen += piece
        if b"forbidden-answer" in self._seen:
            raise ContentDenied("This answer is not allowed here.")
        return piece

    def end(self) -> bytes:
        return b""


class Breaks(ContentHook):
    """Cannot be applied to what says so."""

    name = "breaks"

    async def before(self, about: About, body: Body) -> Body | None:
        if "break-the-rule" in str(body):
            raise RuntimeError("a stranger's fault")
        return None


class Lengthens(ContentHook):
    """Makes two thousand words of a request that asks for it."""

    name = "lengthens"

    async def before(self, about: About, body: Body) -> Body | None:
        if "please-lengthen" in str(body):
            return {**body, "messages": [{"role": "user", "content": "word " * 2000}]}
        return None


class Hangs(ContentHook):
    """Never comes back from what says so, not even when it is told to."""

    name = "hangs"
    deadline_s = 0.05

    async def before(self, about: About, body: Body) -> Body | None:
        return await _never() if "hang-the-rule" in str(body) else None

    async def after(self, about: About, answer: Body) -> Body | None:
        return await _never() if "hang-the-answer" in str(answer) else None


async def _never() -> Body | None:
    for _ in range(2):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    return None


class Ponders(ContentHook):
    """Thinks for longer than any test waits about what says so."""

    name = "ponders"
    deadline_s = 60.0

    async def before(self, about: About, body: Body) -> Body | None:
        if "ponder-this" in str(body):
            await asyncio.Event().wait()
        return None


class Withdraws(ContentHook):
    """No answer may have a word of those that stand in the file that WITHDRAWN_WORDS names, from now on."""

    name = "withdraws"

    async def after(self, about: About, answer: Body) -> Body | None:
        _require_none_withdrawn(str(answer))
        return None

    def stream(self, about: About) -> StreamFilter | None:
        return _Withdrawn()


class _Withdrawn:
    def feed(self, piece: bytes) -> bytes:
        _require_none_withdrawn(piece.decode("utf-8", "ignore"))
        return piece

    def end(self) -> bytes:
        return b""


def _require_none_withdrawn(text: str) -> None:
    if any(word in text for word in Path(os.environ["WITHDRAWN_WORDS"]).read_text().split()):
        raise ContentDenied("This answer was withdrawn.")
