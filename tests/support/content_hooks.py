"""Rules about content as an operator may write them, for tests of where they are asked."""

from __future__ import annotations

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
