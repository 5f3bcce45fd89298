"""The rule that takes e-mail addresses, phone and card numbers out, for the workspaces that turned it on."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from llm_gateway.content.hooks import About, Body, ContentHook, StreamFilter
from llm_gateway.content.personal_data import Kind, redact
from llm_gateway.content.stream_redactor import StreamRedactor, without_logprobs
from llm_gateway.content.texts import rewrite_texts
from llm_gateway.metrics import Metrics

# About a millisecond of searching; more is done beside the event loop.
_LONG_CHARACTERS: Final = 32 * 1024
_STREAMING: Final = frozenset({"chat", "messages", "responses"})


class Redactor(ContentHook):
    """Requests are redacted where the caller's policy says `redact`, answers where it says `redact_answers`."""

    name = "redactor"
    deadline_s = 5.0

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def applies(self, about: About) -> bool:
        policy = about.caller.policy
        return policy.redact or policy.redact_answers

    async def before(self, about: About, body: Body) -> Body | None:
        return await self._redacted(body, "request") if about.caller.policy.redact else None

    async def after(self, about: About, answer: Body) -> Body | None:
        if not about.caller.policy.redact_answers:
            return None
        without: Body = without_logprobs(await self._redacted(answer, "answer"))
        return without

    def stream(self, about: About) -> StreamFilter | None:
        if not about.caller.policy.redact_answers or about.endpoint not in _STREAMING:
            return None
        return StreamRedactor(about.endpoint, lambda kinds: self._count(kinds, "answer"))

    async def _redacted(self, body: Body, of: Literal["request", "answer"]) -> Body:
        found: list[Kind] = []

        def rewrite(text: str) -> str:
            passed, kinds = redact(text)
            found.extend(kinds)
            return passed

        if characters(body) > _LONG_CHARACTERS:
            seen: Body = await asyncio.to_thread(rewrite_texts, body, rewrite)
        else:
            seen = rewrite_texts(body, rewrite)
        self._count(found, of)
        return seen

    def _count(self, kinds: list[Kind], of: Literal["request", "answer"]) -> None:
        for kind in set(kinds):
            self._metrics.redacted(kind, of=of, count=kinds.count(kind))


def characters(value: object) -> int:
    """How long all strings in it are together."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(characters, value.values()))
    if isinstance(value, list):
        return sum(map(characters, value))
    return 0
