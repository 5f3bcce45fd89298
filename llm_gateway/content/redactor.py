"""The rules that take e-mail addresses, phone and card numbers out, for the workspaces that turned them on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

from llm_gateway.content.hooks import About, Body, ContentHook, StreamFilter
from llm_gateway.content.personal_data import Kind
from llm_gateway.content.redaction import Redaction
from llm_gateway.content.steps import Turns
from llm_gateway.content.stream_redactor import StreamRedactor, without_logprobs
from llm_gateway.content.texts import rewrite_texts
from llm_gateway.metrics import Metrics

_STREAMING: Final = frozenset({"chat", "messages", "responses"})
# Ten megabytes take three seconds of one core, in turns with everybody else's.
_DEADLINE_S: Final = 30.0


class RequestRedactor(ContentHook):
    """Requests are redacted where the caller's policy says `redact`."""

    name = "redactor"
    deadline_s = _DEADLINE_S

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turns = Turns()

    def applies(self, about: About) -> bool:
        return about.caller.policy.redact

    async def before(self, about: About, body: Body) -> Body | None:
        redaction = Redaction()
        seen: Body = await self._turns.take(rewrite_texts(body, redaction))
        _count(self._metrics, redaction.kinds, "request")
        return seen


class AnswerRedactor(ContentHook):
    """Answers are redacted where the caller's policy says `redact_answers`; numbers of embeddings are not looked at."""

    name = "answer_redactor"
    deadline_s = _DEADLINE_S

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turns = Turns()

    def applies(self, about: About) -> bool:
        return about.caller.policy.redact_answers and about.endpoint in _STREAMING

    async def after(self, about: About, answer: Body) -> Body | None:
        redaction = Redaction()
        seen: Body = without_logprobs(await self._turns.take(rewrite_texts(answer, redaction)))
        _count(self._metrics, redaction.kinds, "answer")
        return seen

    def stream(self, about: About) -> StreamFilter | None:
        return StreamRedactor(about.endpoint, lambda kinds: _count(self._metrics, Counter(kinds), "answer"))


def _count(metrics: Metrics, kinds: Mapping[Kind, int], of: Literal["request", "answer"]) -> None:
    for kind, count in kinds.items():
        metrics.redacted(kind, of=of, count=count)
