"""All rules about content, in their order: what they let pass, what they make of it, what happens when one fails."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from traceback import walk_tb
from typing import Final

import orjson

from core.logging import get_logger
from core.postgres import within
from llm_gateway.content.hooks import (
    About,
    AnswerWithheld,
    Body,
    ContentDenied,
    ContentHook,
    ContentRuleFailed,
    SteppedFilter,
    StreamFilter,
)
from llm_gateway.content.steps import joined_in_turns
from llm_gateway.metrics import Metrics

log = get_logger(__name__)

_Ask = Callable[[About, Body], Coroutine[None, None, Body | None]]

# A stranger's code: whatever it raises, nothing may pass it by. A hook may also cancel itself, which ends no call.
_ANYTHING: Final = (Exception, asyncio.CancelledError)


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
        """The rules that concern this call. Raises: ContentRuleFailed, where one cannot even say whether it does."""
        return CallRules(about, tuple(hook for hook in self._hooks if _applies(hook, about)), self._metrics)


class CallRules:
    """The rules of one call. A rule that fails, or is late, stops the call unless it only observes."""

    __slots__ = ("_about", "_filters", "_hooks", "_metrics")

    def __init__(self, about: About, hooks: tuple[ContentHook, ...], metrics: Metrics) -> None:
        self._about = about
        self._hooks = hooks
        self._metrics = metrics
        self._filters: list[tuple[ContentHook, StreamFilter]] | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._hooks)

    async def request(self, body: Body) -> Body:
        """What may be sent. Raises: ContentDenied, ContentRuleFailed."""
        for hook in self._hooks:
            body = await self._asked(hook, hook.before, body, ContentRuleFailed)
        return body

    async def answer(self, raw: bytes) -> bytes:
        """What may be given of an answer that is not streamed. Raises: ContentDenied, AnswerWithheld."""
        hooks = [hook for hook in self._hooks if type(hook).after is not ContentHook.after]
        if not hooks:
            return raw
        try:
            given = answer = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise AnswerWithheld from error
        for hook in hooks:
            given = await self._asked(hook, hook.after, given, AnswerWithheld)
        return raw if given is answer else orjson.dumps(given)

    def feed(self, piece: bytes) -> bytes:
        """What may be given of this piece of a streamed answer. Raises: ContentDenied, AnswerWithheld."""
        if not piece or not self._hooks:
            return piece
        for hook, one in self._stream_filters():
            piece = self._guarded(hook, one.feed, piece)
        return piece

    def end(self) -> bytes:
        """What may be given at last. Raises: ContentDenied, AnswerWithheld."""
        rest = b""
        for hook, one in self._stream_filters():
            rest = self._guarded(hook, partial(_last, one), rest)
        return rest

    async def feed_long(self, piece: bytes) -> bytes:
        """What `feed` gives, without keeping everybody else waiting. Raises: ContentDenied, AnswerWithheld."""
        for hook, one in self._stream_filters() if piece else ():
            try:
                piece = await joined_in_turns(one.steps(piece)) if isinstance(one, SteppedFilter) else one.feed(piece)
            except _ANYTHING as error:
                self._stopped_by(hook, error)
        return piece

    async def whole_stream(self, raw: bytes) -> bytes:
        """What may be given of a streamed answer that is there as a whole. Raises: ContentDenied, AnswerWithheld."""
        return await self.feed_long(raw) + self.end()

    def _stream_filters(self) -> list[tuple[ContentHook, StreamFilter]]:
        if self._filters is None:
            made = [(hook, self._filter_of(hook)) for hook in self._hooks]
            self._filters = [(hook, one) for hook, one in made if one is not None]
        return self._filters

    def _filter_of(self, hook: ContentHook) -> StreamFilter | None:
        try:
            return hook.stream(self._about)
        except _ANYTHING as error:
            _failed(hook, error, AnswerWithheld)
            return None

    def _guarded(self, hook: ContentHook, step: Callable[[bytes], bytes], piece: bytes) -> bytes:
        try:
            return step(piece)
        except _ANYTHING as error:
            self._stopped_by(hook, error)
            return piece

    def _stopped_by(self, hook: ContentHook, error: BaseException) -> None:
        """An observer's filter is out of the way. Raises: the error itself, or AnswerWithheld, for everybody else's."""
        if isinstance(error, ContentDenied):
            self._metrics.denied(hook.name)
            raise error
        if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
            raise error
        _failed(hook, error, AnswerWithheld)
        self._filters = [(other, one) for other, one in self._stream_filters() if other is not hook]

    async def _asked(self, hook: ContentHook, ask: _Ask, body: Body, failure: type[ContentRuleFailed]) -> Body:
        try:
            made = await within(hook.deadline_s, ask(self._about, body))
            if made is not None and not isinstance(made, dict):
                raise TypeError("a hook gives an object or None")
        except ContentDenied:
            self._metrics.denied(hook.name)
            raise
        except _ANYTHING as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            _failed(hook, error, failure)
            return body
        return made or body


def _last(one: StreamFilter, left: bytes) -> bytes:
    return (one.feed(left) if left else b"") + one.end()


def _applies(hook: ContentHook, about: About) -> bool:
    try:
        return hook.applies(about)
    except _ANYTHING as error:
        _failed(hook, error, ContentRuleFailed)
        return False


def _failed(hook: ContentHook, error: BaseException, failure: type[ContentRuleFailed]) -> None:
    """The log has it, without the words of the exception, which may be the caller's. Raises: `failure`, if required."""
    raised_at = None
    for frame in walk_tb(error.__traceback__):
        raised_at = f"{frame[0].f_code.co_filename}:{frame[1]}"
    late = isinstance(error, TimeoutError)
    log.warning("content_rule_failed", rule=hook.name, late=late, raised=type(error).__name__, raised_at=raised_at)
    if hook.required:
        raise failure from error


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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
