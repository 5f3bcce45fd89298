"""What a rule about content is: asked before a request goes out and before an answer comes back.

    class NoSecrets(ContentHook):
        name = "no_secrets"

        async def before(self, about: About, body: Body) -> Body | None:
            if "sk-" in str(body):
                raise ContentDenied("This request seems to contain an API key.")
            return None

Name it in BUTTRESS_CONTENT_HOOKS as `package.module:NoSecrets`; what that names is called without arguments, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from core.errors import InvalidInput, Unavailable
from llm_gateway.caller import Caller

Body = dict[str, Any]  # Any: whatever JSON the client or the provider sent


class ContentDenied(InvalidInput):
    """A rule of the operator's does not let the request, or the answer, pass. Nothing is gained by trying again."""

    default_code = "content_denied"
    default_message = "A rule of this service does not allow this content."


class ContentRuleFailed(Unavailable):
    """A rule about content could not be applied, so nothing passes."""

    default_code = "content_rule_failed"
    default_message = "A rule about content could not be applied, so the request was not passed on. Retry shortly."


class AnswerWithheld(ContentRuleFailed):
    """The same, after the provider did the work: trying again would be paid again."""

    default_code = "answer_withheld"
    default_message = "A rule about content could not be applied to the answer, so it is withheld. It was charged."


@dataclass(frozen=True, slots=True)
class About:
    """Which call a hook is asked about."""

    call_id: str
    caller: Caller
    endpoint: str
    model: str
    stream: bool


class StreamFilter(Protocol):
    """One streamed answer on its way to the client, as server-sent events.

    Both methods are synchronous and must be quick, because they run between two chunks (or see SteppedFilter). Raising
    ContentDenied ends the stream with an error event; what had come by then was charged.
    """

    def feed(self, piece: bytes) -> bytes:
        """What the client gets now; `piece` may be cut anywhere."""
        ...

    def end(self) -> bytes:
        """What the client gets at last."""
        ...


@runtime_checkable
class SteppedFilter(StreamFilter, Protocol):
    """A filter that can work on a long piece in short steps, so that nobody else has to wait for the whole of it."""

    def steps(self, piece: bytes) -> Iterator[bytes]:
        """What `feed` gives, bit by bit; a step may give nothing."""
        ...


class ContentHook:
    """A rule. Each method may be left as it is: it lets everything pass.

    `required` is false for an observer: its failure, or its lateness, is logged and changes nothing. A required hook
    that fails or is late stops the call (ContentRuleFailed, AnswerWithheld). `deadline_s` is for `before` and for
    `after`, each; whoever works for more than a few milliseconds without an `await` keeps every other call waiting.
    They are asked once the call is held: whoever is over their limits makes no rule work.
    """

    name: ClassVar[str]
    required: ClassVar[bool] = True
    deadline_s: ClassVar[float] = 1.0

    def applies(self, about: About) -> bool:
        """Whether the hook wants to be asked about this call at all."""
        return True

    async def before(self, about: About, body: Body) -> Body | None:
        """The request to send instead, or None to send it as it is. Never changes `body`. Raises: ContentDenied."""
        return None

    async def after(self, about: About, answer: Body) -> Body | None:
        """The answer to give instead, or None to give it as it is. Never changes `answer`. Raises: ContentDenied.

        The cache keeps what was given, and asks again each time it gives that again.
        """
        return None

    def stream(self, about: About) -> StreamFilter | None:
        """What a streamed answer passes through; None where nothing needs to. `after` is not asked about streams."""
        return None
