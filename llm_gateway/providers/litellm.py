"""Every call that a provider does not answer in the client's own format, translated by litellm's SDK."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from core.logging import get_logger
from llm_gateway.accounting import TokenCounts
from llm_gateway.providers.chat_sources import ChatSource, LitellmChat, NativeChat
from llm_gateway.providers.contract import FailureKind, Provider, ProviderCall, ProviderFailure
from llm_gateway.providers.litellm_failures import failure_of
from llm_gateway.providers.litellm_http import opened_responses
from llm_gateway.providers.litellm_module import Litellm, LitellmModule
from llm_gateway.providers.translations import (
    ChatTranslation,
    MessagesTranslation,
    ResponsesTranslation,
    Translation,
    translatable_fields,
)
from llm_gateway.settlement import DetachedTasks
from llm_gateway.wire.format import Endpoint

log = get_logger(__name__)

_TRANSLATIONS: Final[dict[Endpoint, Callable[[Litellm, ProviderCall], Translation]]] = {
    "chat": ChatTranslation,
    "messages": MessagesTranslation,
    "responses": ResponsesTranslation,
}
_LITELLMS_OWN: Final = frozenset({"thinking_blocks", "provider_specific_fields", "cache_control"})


class TranslatedAnswer:
    """An answer in the client's format; see ProviderAnswer."""

    def __init__(self, pieces: AsyncIterator[bytes], source: ChatSource | None = None) -> None:
        self._pieces = pieces
        self._source = source

    async def read(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            return b""
        except ProviderFailure:
            raise
        except Exception as error:  # the provider has done its work: what cannot be translated is paid for all the same
            # its words may be somebody's, so the log has only where it was
            log.error("translation_fault", cause=type(error).__name__, place=_place(error))  # noqa: TRY400
            raise ProviderFailure(FailureKind.UNUSABLE) from error

    def unread(self) -> bytes:
        return b""  # what litellm has of it is not in the client's format yet

    def abort(self) -> None:
        if self._source is not None:
            self._source.abort()

    def reported(self) -> TokenCounts | None:
        return self._source.reported() if self._source is not None else None


class LitellmProvider:
    """Asks in a provider's own words what it does not answer in the client's."""

    def __init__(self, native: Provider, tasks: DetachedTasks) -> None:
        self._native = native
        self._tasks = tasks
        self._module = LitellmModule()

    async def ready(self) -> None:
        """litellm is imported and silent."""
        await self._module.get()

    async def aclose(self) -> None:
        """No connection is left. Calls that still run fail."""
        await self._module.aclose()

    async def open(self, call: ProviderCall) -> TranslatedAnswer:
        litellm = await self._module.get()
        if call.endpoint == "embeddings":
            return await self._embeddings(litellm, call)
        translation = _translation(litellm, call)
        source = await self._ask(litellm, call, translation.chat_body)
        pieces = translation.stream(source) if call.stream else _once(translation.whole(source))
        return TranslatedAnswer(pieces, source)

    async def _ask(self, litellm: Litellm, call: ProviderCall, chat_body: dict[str, Any]) -> ChatSource:  # Any: JSON
        deployment = call.deployment
        if "chat" in deployment.native:
            messages = [_plain_message(message) for message in chat_body["messages"]]
            body = {**chat_body, "messages": messages, "model": deployment.model}
            chat = ProviderCall(
                deployment=deployment, endpoint="chat", body=body, stream=call.stream, call_id=call.call_id
            )
            return NativeChat(await self._native.open(chat), litellm)
        opened: list[Any] = []  # Any: httpx's responses
        opened_responses.set(opened)
        try:
            response = await litellm.sdk.acompletion(
                **_target(call),
                # else it looks for tool servers that the request may name, and would call them
                _skip_mcp_handler=True,
                **chat_body,
            )
        except Exception as error:
            if opened:  # only what was answered with 200 is noted: the provider did the work, and it cannot be read
                raise ProviderFailure(FailureKind.UNUSABLE) from error
            raise failure_of(error, call.body) from error
        source = LitellmChat(response, opened, self._tasks)
        if call.stream:
            await source.begin()
        return source

    async def _embeddings(self, litellm: Litellm, call: ProviderCall) -> TranslatedAnswer:
        fields = translatable_fields("embeddings", call.body)
        try:
            response = await litellm.sdk.aembedding(**_target(call), **fields)
        except Exception as error:
            raise failure_of(error, call.body) from error
        return _ready(response.model_dump_json(exclude_none=True).encode())


def _target(call: ProviderCall) -> dict[str, Any]:  # Any: litellm has no types
    """Whom litellm asks, and that it does so once."""
    deployment = call.deployment
    return {
        "model": deployment.litellm_model,
        "api_base": deployment.litellm_base_url,
        "api_key": deployment.api_key.get_secret_value() if deployment.api_key else None,
        "timeout": deployment.timeouts.total_s,
        "num_retries": 0,
        "max_retries": 0,
        **deployment.litellm_options,
    }


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """The message without litellm's own fields, which strict servers refuse."""
    return {name: value for name, value in message.items() if name not in _LITELLMS_OWN}


def _translation(litellm: Litellm, call: ProviderCall) -> Translation:
    try:
        return _TRANSLATIONS[call.endpoint](litellm, call)
    except ProviderFailure:
        raise
    except Exception as error:  # whatever it stumbled over, nobody was asked, and asking elsewhere would not help
        raise ProviderFailure(FailureKind.UNTRANSLATABLE) from error


def _place(error: Exception) -> str:
    """The last line of code that the exception came through."""
    *_, last = traceback.walk_tb(error.__traceback__)
    return f"{last[0].f_code.co_filename.rpartition('site-packages/')[2]}:{last[1]}"


def _ready(body: bytes) -> TranslatedAnswer:
    async def once() -> AsyncIterator[bytes]:
        yield body

    return TranslatedAnswer(once())


async def _once(body: Any) -> AsyncIterator[bytes]:  # Any: a coroutine
    yield await body
