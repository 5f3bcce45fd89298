"""All rules about content, in their order: what they let pass, what they make of it, what happens when one fails."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine, Sequence

import orjson

from core.logging import get_logger
from llm_gateway.content.hooks import (
    About,
    Body,
    ContentDenied,
    ContentHook,
    ContentRuleFailed,
    StreamFilter,
)
from llm_gateway.metrics import Metrics

log = get_logger(__name__)

_Ask = Callable[[Body], Coroutine[None, None, Body | None]]


class HookInvalid(ValueError):
    """BUTTRESS_CONTENT_HOOKS names something that is no hook."""


class ContentRules:
    """The hooks, asked one after the other: each sees what the one before it made."""

    def __init__(self, hooks: Sequence[ContentHook], metrics: Metrics) -> None:
        self._hooks = tuple(hooks)
        self._metrics = metrics

    @property
    def names(self) -> list[str]:
        """The hooks' names, in their order."""
        return [hook.name for hook in self._hooks]

    def about(self, about: About) -> CallRules:
        """The rules that concern this call."""
        return CallRules(about, tuple(hook for hook in self._hooks if hook.applies(about)), self._metrics)


class CallRules:
    """The rules of one call."""

    __slots__ = ("_about", "_filters", "_hooks", "_metrics")

    def __init__(self, about: About, hooks: tuple[ContentHook, ...], metrics: Metrics) -> None:
        self._about = about
        self._hooks = hooks
        self._metrics = metrics
        self._filters: list[tuple[ContentHook, StreamFilter]] | None = None

    async def request(self, body: Body) -> Body:
        """What may be sent. Raises: ContentDenied, ContentRuleFailed."""
        for hook in self._hooks:
            body = await self._asked(hook, lambda seen, hook=hook: hook.before(self._about, seen), body)  # type: ignore[misc]
        return body

    async def answer(self, raw: bytes) -> bytes:
        """What may be given of an answer that is not streamed. Raises: ContentDenied, ContentRuleFailed."""
        if not self._hooks:
            return raw
        given = answer = orjson.loads(raw)
        for hook in self._hooks:
            given = await self._asked(hook, lambda seen, hook=hook: hook.after(self._about, seen), given)  # type: ignore[misc]
        return raw if given is answer else orjson.dumps(given)

    def feed(self, piece: bytes) -> bytes:
        """What may be given of this piece of a streamed answer. Raises: ContentDenied, ContentRuleFailed."""
        if not piece:
            return piece
        for hook, one in self._stream_filters():
            piece = self._guarded(hook, one.feed, piece)
        return piece

    def end(self) -> bytes:
        """What may be given at last. Raises: ContentDenied, ContentRuleFailed."""
        rest = b""
        for hook, one in self._stream_filters():
            rest = self._guarded(hook, lambda left, one=one: (one.feed(left) if left else b"") + one.end(), rest)  # type: ignore[misc]
        return rest

    def _stream_filters(self) -> list[tuple[ContentHook, StreamFilter]]:
        if self._filters is None:
            made = [(hook, hook.stream(self._about)) for hook in self._hooks]
            self._filters = [(hook, one) for hook, one in made if one is not None]
        return self._filters

    def _guarded(self, hook: ContentHook, step: Callable[[bytes], bytes], piece: bytes) -> bytes:
        try:
            return step(piece)
        except ContentDenied:
            self._metrics.denied(hook.name)
            raise
        except Exception as error:  # a stranger's code: whatever it raises, nothing may pass it by
            log.warning("content_rule_failed", rule=hook.name, exc_info=error)
            if hook.required:
                raise ContentRuleFailed from error
            self._filters = [(other, one) for other, one in self._stream_filters() if other is not hook]
            return piece

    async def _asked(self, hook: ContentHook, ask: _Ask, body: Body) -> Body:
        try:
            async with asyncio.timeout(hook.deadline_s):
                return await ask(body) or body
        except ContentDenied:
            self._metrics.denied(hook.name)
            raise
        except Exception as error:  # a stranger's code, see above; cancellation is none and passes
            late = isinstance(error, TimeoutError)
            log.warning("content_rule_failed", rule=hook.name, late=late, exc_info=None if late else error)
            if not hook.required:
                return body
            raise ContentRuleFailed from error


def load_hooks(named: Sequence[str]) -> list[ContentHook]:
    """What each `package.module:name` makes when it is called without arguments.

    Raises: HookInvalid for the first that makes none.
    """
    return [_load(name) for name in named]


def _load(name: str) -> ContentHook:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except Exception as error:  # whatever a stranger's module raises at its import
        raise HookInvalid(
            f"BUTTRESS_CONTENT_HOOKS: {name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, ContentHook):
        raise HookInvalid(f"BUTTRESS_CONTENT_HOOKS: {name} is no llm_gateway.content.hooks.ContentHook.")
    return made
