"""A call in its client's format as a chat completion, and the completion back; the words are litellm's, the care ours.

What litellm would make of a call itself is not let near it: looking for tool servers, a second call that sums the first
one up, sending it on to another address. Of the translated request only fields of a chat completion are kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import orjson

from llm_gateway.providers.chat_sources import ChatSource
from llm_gateway.providers.contract import FailureKind, ProviderCall, ProviderFailure
from llm_gateway.providers.litellm_module import Litellm
from llm_gateway.wire.format import Endpoint
from llm_gateway.wire.sse import data_event

# litellm takes its own instructions from the same keyword arguments as the request; only these are a request's.
_FIELDS: Final[dict[Endpoint, frozenset[str]]] = {
    "chat": frozenset(
        """
        messages stream stream_options temperature top_p n stop max_tokens max_completion_tokens presence_penalty
        frequency_penalty logit_bias user response_format seed tools tool_choice parallel_tool_calls logprobs
        top_logprobs reasoning_effort thinking functions function_call
        """.split()  # noqa: SIM905 -- one word a line reads worse
    ),
    "messages": frozenset(
        """
        messages system stream max_tokens stop_sequences temperature top_k top_p tools tool_choice thinking
        output_config output_format metadata
        """.split()  # noqa: SIM905
    ),
    "responses": frozenset(
        """
        input instructions stream max_output_tokens temperature top_p tools tool_choice parallel_tool_calls text
        reasoning user
        """.split()  # noqa: SIM905
    ),
    "embeddings": frozenset({"input", "dimensions", "encoding_format", "user"}),
}
# The vendors' housekeeping: another provider has no use for it, and leaving it out changes no answer.
_NO_USE_ELSEWHERE: Final = frozenset(
    """
    model metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention modalities verbosity
    include truncation stream_options inference_geo
    """.split()  # noqa: SIM905
)


def translatable_fields(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """The fields that can be put into other words. Raises: ProviderFailure naming one that cannot."""
    known = _FIELDS[endpoint]
    unknown = {name for name, value in body.items() if value is not None} - known - _NO_USE_ELSEWHERE
    if unknown:
        raise ProviderFailure(FailureKind.REJECTED, 400, code="unsupported_parameter", param=min(unknown))
    return {name: body[name] for name in known & body.keys() if body[name] is not None}


class Translation(Protocol):
    """One call, as a chat completion and back. Made by what may raise any exception: the request is at fault then."""

    chat_body: dict[str, Any]  # Any: JSON

    async def whole(self, source: ChatSource) -> bytes:
        """The body of the answer in the client's format. Raises: ProviderFailure; anything else is our fault."""
        ...

    def stream(self, source: ChatSource) -> AsyncIterator[bytes]:
        """The events of the answer. Raises: as `whole`."""
        ...


class ChatTranslation:
    """A chat completion needs no translation but litellm's own, into the provider's words."""

    def __init__(self, litellm: Litellm, call: ProviderCall) -> None:
        self.chat_body = translatable_fields("chat", call.body)

    async def whole(self, source: ChatSource) -> bytes:
        completion = (await source.whole()).model_dump(mode="json", exclude_none=True)
        if source.reported() is None:
            completion.pop("usage", None)  # litellm makes some up
        for choice in completion["choices"]:
            choice["message"].pop("provider_specific_fields", None)
        return orjson.dumps(completion)

    async def stream(self, source: ChatSource) -> AsyncIterator[bytes]:
        async for chunk in source.chunks():
            shown = _openai_chunk(chunk.model_dump(mode="json", exclude_none=True))
            if source.reported() is None and shown.pop("usage", None) and not shown["choices"]:
                continue  # litellm made it up
            yield data_event(orjson.dumps(shown))
        yield data_event(b"[DONE]")


class MessagesTranslation:
    """Anthropic's messages."""

    def __init__(self, litellm: Litellm, call: ProviderCall) -> None:
        self._litellm = litellm
        self._call = call
        provider, model = call.deployment.litellm_model.split("/", 1)
        fields = translatable_fields("messages", call.body)
        adapter = self._litellm.messages.AnthropicAdapter()
        # on a copy of the messages: the adapter moves system prompts into the list that it is given
        request = {**fields, "model": call.deployment.litellm_model, "messages": list(fields["messages"])}
        request.pop("stream", None)
        chat, self._tool_names = adapter.translate_completion_input_params_with_tool_mapping(
            request, custom_llm_provider=provider
        )
        self.chat_body = _chat_body(chat, call)
        self._model = model

    async def whole(self, source: ChatSource) -> bytes:
        completion = await source.whole()
        _end_what_was_cut(completion)
        adapter = self._litellm.messages.AnthropicAdapter()
        message = adapter.translate_completion_output_params(completion, tool_name_mapping=self._tool_names)
        message = {**message, "id": f"msg_{self._call.call_id}", "model": self._model}
        if source.reported() is None:
            del message["usage"]  # the adapter makes zeros of what nobody reported
        return orjson.dumps(message, default=_plain)

    async def stream(self, source: ChatSource) -> AsyncIterator[bytes]:
        chunks = await _Begun.of(source.chunks())
        wrapper = self._litellm.messages_stream.AnthropicStreamWrapper(
            completion_stream=chunks, model=self._model, tool_name_mapping=self._tool_names
        )
        async for event in wrapper:
            shown = dict(event)
            if shown["type"] == "message_start":
                shown["message"] = {**shown["message"], "id": f"msg_{self._call.call_id}"}
            elif shown["type"] == "message_delta" and source.reported() is None:
                del shown["usage"]  # the adapter makes zeros of what nobody reported
            yield _named_event(shown["type"], orjson.dumps(shown, default=_plain))


def _end_what_was_cut(completion: Any) -> None:  # Any: litellm's, without types
    """A use of a tool that the answer's maximum cut short is one of nothing, as Anthropic's own: an input is an object.

    `stop_reason` says that it was cut. Arguments that a model made wrong by itself stay, and are an unusable answer.
    """
    for choice in completion.choices:
        if choice.finish_reason == "length":
            for call in choice.message.tool_calls or ():
                if not _is_object(call.function.arguments):
                    call.function.arguments = "{}"


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False


class ResponsesTranslation:
    """OpenAI's responses."""

    def __init__(self, litellm: Litellm, call: ProviderCall) -> None:
        self._litellm = litellm
        self._call = call
        self._provider, self._model = call.deployment.litellm_model.split("/", 1)
        self._request = translatable_fields("responses", call.body)
        bridge = litellm.responses.LiteLLMCompletionResponsesConfig
        self.chat_body = _chat_body(
            bridge.transform_responses_api_request_to_chat_completion_request(
                model=self._model,
                input=self._request["input"],
                responses_api_request=self._request,
                custom_llm_provider=self._provider,
                stream=call.stream,
            ),
            call,
        )

    async def whole(self, source: ChatSource) -> bytes:
        bridge = self._litellm.responses.LiteLLMCompletionResponsesConfig
        completion = await source.whole()
        answer = bridge.transform_chat_completion_response_to_responses_api_response(
            chat_completion_response=completion,
            request_input=self._request["input"],
            responses_api_request=self._request,
        ).model_dump(mode="json", exclude_none=True)
        return orjson.dumps(self._own(answer, usage_reported=source.reported() is not None))

    async def stream(self, source: ChatSource) -> AsyncIterator[bytes]:
        chunks = await _Begun.of(source.chunks())
        events = self._litellm.responses_stream.LiteLLMCompletionStreamingIterator(
            model=self._model,
            litellm_custom_stream_wrapper=chunks,
            request_input=self._request["input"],
            responses_api_request=self._request,
        )
        sequence = 0
        async for event in events:
            shown = event.model_dump(mode="json", exclude_none=True)
            if isinstance(shown.get("response"), dict):
                shown["response"] = self._own(shown["response"], usage_reported=source.reported() is not None)
            shown["sequence_number"] = sequence
            sequence += 1
            yield _named_event(shown["type"], orjson.dumps(shown))

    def _own(self, response: dict[str, Any], *, usage_reported: bool) -> dict[str, Any]:  # Any: JSON
        """The response under an id of ours (litellm's holds the provider's own, readable by anybody), kept by nobody.

        Without usage where nobody reported any: litellm makes some up.
        """
        left_out = {"provider_specific_fields"} if usage_reported else {"provider_specific_fields", "usage"}
        kept = {name: value for name, value in response.items() if name not in left_out}
        metadata = self._call.body.get("metadata") or {}
        return {**kept, "id": f"resp_{self._call.call_id}", "model": self._model, "metadata": metadata, "store": False}


class _Begun:
    """Chunks, of which the first has come."""

    logging_obj = None  # litellm looks for its own logging here

    def __init__(self, chunks: AsyncIterator[Any]) -> None:  # Any: litellm has no types
        self._chunks = chunks
        self._first: Any = None  # Any: litellm has no types

    @classmethod
    async def of(cls, chunks: AsyncIterator[Any]) -> _Begun:  # Any: litellm has no types
        """With the first chunk there: what fails before it must not look like an answer. Raises: as the source."""
        self = cls(chunks)
        self._first = await anext(chunks, None)
        return self

    def __aiter__(self) -> _Begun:
        return self

    async def __anext__(self) -> Any:  # Any: litellm has no types
        chunk, self._first = self._first or await anext(self._chunks), None
        return chunk


def _chat_body(chat: dict[str, Any], call: ProviderCall) -> dict[str, Any]:  # Any: JSON
    """Of what litellm made of the call, the fields of a chat completion, its maximum as the deployment names it."""
    known = _FIELDS["chat"] - {"stream", "stream_options"}
    body = {name: chat[name] for name in known & chat.keys() if chat[name] is not None}
    effort = body.get("reasoning_effort")
    if isinstance(effort, dict):  # with a wish for a summary, which only OpenAI's responses can grant
        body["reasoning_effort"] = effort.get("effort")
    maximum = body.pop("max_tokens", None)
    if maximum is not None:
        body[call.deployment.max_output_field] = maximum
    if call.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def _openai_chunk(chunk: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """The chunk as OpenAI sends it: usage stands in a chunk of its own, which has no choices, and without a price."""
    chunk.pop("provider_specific_fields", None)
    if isinstance(chunk.get("usage"), dict):
        chunk["usage"].pop("cost", None)
    for choice in chunk["choices"]:
        choice.get("delta", {}).pop("provider_specific_fields", None)
    if "usage" in chunk and not any(choice.get("delta") or choice.get("finish_reason") for choice in chunk["choices"]):
        chunk["choices"] = []
    return chunk


def _named_event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\n" + data_event(data)


def _plain(value: Any) -> Any:  # Any: litellm's own objects, of which some are pydantic models
    return value.model_dump(mode="json", exclude_none=True)
