"""A chat completion as litellm's own objects, wherever it comes from: what every translation starts from.

A server that speaks chat completions is asked by our own connection, with its exact statuses and headers; any other in
its own words, by litellm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import orjson

from llm_gateway.accounting import TokenCounts
from llm_gateway.providers.contract import FailureKind, ProviderAnswer, ProviderFailure
from llm_gateway.providers.litellm_failures import is_throttling
from llm_gateway.providers.litellm_http import close_all
from llm_gateway.providers.litellm_module import Litellm
from llm_gateway.settlement import DetachedTasks
from llm_gateway.wire.answer_stream import grown
from llm_gateway.wire.openai_usage import read_usage
from llm_gateway.wire.sse import EventTooLarge, SseSplitter, event_data

_MAX_WHOLE_BYTES: Final = 32 * 1024 * 1024
_MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
_DONE: Final = b"[DONE]"


class ChatSource(Protocol):
    """A chat completion that has begun. Raises everywhere: ProviderFailure."""

    async def whole(self) -> Any:  # Any: litellm has no types
        """The completion, a ModelResponse with at least one choice."""
        ...

    def chunks(self) -> AsyncIterator[Any]:  # Any: litellm has no types
        """Its chunks, each a ModelResponseStream; the last one may have no choices but usage."""
        ...

    def abort(self) -> None:
        """The provider's connection is being closed; harmless more than once."""
        ...

    def reported(self) -> TokenCounts | None:
        """What the provider itself has said so far of its use; None where it has said nothing."""
        ...


class NativeChat:
    """From a server that speaks chat completions."""

    def __init__(self, answer: ProviderAnswer, litellm: Litellm) -> None:
        self._answer = answer
        self._sdk = litellm.sdk
        self._finished = False
        self._reported: TokenCounts | None = None

    async def whole(self) -> Any:  # Any: litellm has no types
        received = bytearray()
        while piece := await self._answer.read():
            received += piece
            if len(received) > _MAX_WHOLE_BYTES:
                raise ProviderFailure(FailureKind.UNUSABLE)
        completion = _object(bytes(received))
        if completion.get("error") or not completion.get("choices"):
            raise ProviderFailure(FailureKind.UNUSABLE)
        self._reported = read_usage(completion.get("usage"))
        made = self._sdk.utils.convert_to_model_response_object(
            response_object=completion, model_response_object=self._sdk.ModelResponse()
        )
        if not hasattr(made, "usage"):
            made.usage = self._sdk.Usage()  # translations take it for granted
        return made

    async def chunks(self) -> AsyncIterator[Any]:  # Any: litellm has no types
        splitter = SseSplitter(max_event_bytes=_MAX_EVENT_BYTES)
        while True:
            piece = await self._answer.read()
            try:
                events = splitter.feed(piece) if piece else [splitter.rest()]
            except EventTooLarge as error:
                raise ProviderFailure(FailureKind.LOST) from error
            for event in events:
                data = event_data(event)
                if data == _DONE:
                    self._require_finished()
                    return
                if data is not None:
                    yield self._chunk(data)
            if not piece:
                self._require_finished()
                return

    def abort(self) -> None:
        self._answer.abort()

    def reported(self) -> TokenCounts | None:
        return self._reported

    def _chunk(self, data: bytes) -> Any:  # Any: litellm has no types
        chunk = _object(data)
        if chunk.get("error"):
            raise ProviderFailure(FailureKind.LOST)
        self._reported = grown(self._reported, read_usage(chunk.get("usage")))
        for choice in chunk.get("choices") or []:
            self._finished = self._finished or bool(choice.get("finish_reason"))
            delta = choice.get("delta") or {}
            if "reasoning" in delta:  # as vLLM and OpenRouter name it
                delta.setdefault("reasoning_content", delta.pop("reasoning"))
        return self._sdk.ModelResponseStream(**{name: value for name, value in chunk.items() if value is not None})

    def _require_finished(self) -> None:
        """A translation would make an end of its own up, and the client take half an answer for a whole one."""
        if not self._finished:
            raise ProviderFailure(FailureKind.LOST)


class LitellmChat:
    """From anybody else."""

    def __init__(self, response: Any, opened: list[Any], tasks: DetachedTasks) -> None:  # Any: litellm has no types
        self._response = response
        self._opened = opened
        self._tasks = tasks
        self._ended = False
        self._first: Any = None  # Any: litellm has no types
        self._failure: Exception | None = None  # instead of the first chunk
        self._chunks_read = 0
        self._reported: TokenCounts | None = None

    async def begin(self) -> None:
        """The first chunk of a stream is there, or what failed instead is known, to be raised where chunks are read.

        Raises: ProviderFailure (RATE_LIMITED) where the provider says, after status 200 and before any word, that it
        does nothing for us now, as Bedrock does: then another one may be asked.
        """
        try:
            self._first = await anext(self._response, None)
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception as error:
            if is_throttling(error):
                self.abort()
                raise ProviderFailure(FailureKind.RATE_LIMITED, 429) from error
            self._failure = error

    async def whole(self) -> Any:  # Any: litellm has no types
        self._ended = True
        if not self._response.choices:
            raise ProviderFailure(FailureKind.UNUSABLE)
        self._reported = _usage_of(self._response)
        return self._response

    async def chunks(self) -> AsyncIterator[Any]:  # Any: litellm has no types
        try:
            async for chunk in self._all():
                self._note_usage()
                if any(choice.finish_reason for choice in chunk.choices):
                    self._require_finished()
                yield chunk
        except ProviderFailure:
            raise
        except Exception as error:  # whatever litellm raises within a stream, the stream is cut
            raise ProviderFailure(FailureKind.LOST) from error
        finally:
            self.abort()

    async def _all(self) -> AsyncIterator[Any]:  # Any: litellm has no types
        if self._failure is not None:
            raise self._failure
        if self._first is not None:
            yield self._first
            async for chunk in self._response:
                yield chunk

    def reported(self) -> TokenCounts | None:
        return self._reported

    def _note_usage(self) -> None:
        """litellm keeps what came from the provider, with its usage, and shows usage at the end only: its own, if need
        be, counted with some vocabulary."""
        came = self._response.chunks
        for chunk in came[self._chunks_read :]:
            self._reported = grown(self._reported, _usage_of(chunk))
        self._chunks_read = len(came)

    def _require_finished(self) -> None:
        """litellm ends a stream that broke off with `stop`: half an answer would be taken for a whole one."""
        reasons = ("received_finish_reason", "intermittent_finish_reason")
        if not any(getattr(self._response, name, None) for name in reasons):
            raise ProviderFailure(FailureKind.LOST)

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            self._tasks.start(close_all(self._opened), name="close litellm stream")


def _usage_of(answer: Any) -> TokenCounts | None:  # Any: litellm has no types
    usage = getattr(answer, "usage", None)
    return None if usage is None else read_usage(usage.model_dump())


def _object(raw: bytes) -> dict[str, Any]:  # Any: JSON
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ProviderFailure(FailureKind.UNUSABLE) from error
    if not isinstance(found, dict):
        raise ProviderFailure(FailureKind.UNUSABLE)
    return found
