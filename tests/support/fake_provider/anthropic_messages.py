"""Anthropic's `POST /v1/messages` and `/v1/messages/count_tokens`, version 2023-06-01."""

from collections.abc import Iterator

import orjson

from tests.support.fake_provider.answer import Answer, Call, JsonObject, Tool
from tests.support.fake_provider.tokens import count_content, count_json, count_messages
from tests.support.fake_provider.wire import (
    Event,
    Format,
    RequestInvalid,
    inner_object,
    last_user_text,
    named_event,
    objects_in,
    optional_count,
    required_text,
)

# The account's own limits and name, which a gateway must not hand on.
ACCOUNT_HEADERS = {
    "anthropic-organization-id": "org-fake-account",
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-requests-remaining": "3999",
    "anthropic-ratelimit-requests-reset": "2026-11-21T00:00:01Z",
    "anthropic-ratelimit-tokens-limit": "400000",
    "anthropic-ratelimit-tokens-remaining": "399000",
    "anthropic-ratelimit-tokens-reset": "2026-11-21T00:00:01Z",
}
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def read_call(body: JsonObject) -> Call:
    """The call that a message's body asks for. Raises: RequestInvalid."""
    limit = optional_count(body, "max_tokens")
    if limit is None:
        raise RequestInvalid("max_tokens: Field required")
    return _read(body, limit)


def read_count(body: JsonObject) -> Call:
    """The call whose prompt is to be counted. Raises: RequestInvalid."""
    return _read(body, None)


def _read(body: JsonObject, limit: int | None) -> Call:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestInvalid("messages: Field required")
    choice = inner_object(body, "tool_choice")
    wanted = {"any": "", "tool": str(choice.get("name"))}.get(str(choice.get("type")))
    user = inner_object(body, "metadata").get("user_id")
    structure = inner_object(body, "output_config", "format") or inner_object(body, "output_format")
    return Call(
        model=required_text(body, "model"),
        user=user if isinstance(user, str) else None,
        stream=body.get("stream") is True,
        prompt_tokens=count_content(body.get("system"))
        + count_messages(messages)
        + count_json(body.get("tools"))
        + count_json(structure),
        max_output_tokens=limit,
        tools=tuple(
            Tool(name=str(one.get("name")), schema=inner_object(one, "input_schema"))
            for one in objects_in(body.get("tools"))
        ),
        must_call_tool=wanted,
        schema=inner_object(structure, "schema") or None,
        last_user_text=last_user_text(messages),
    )


def _usage(answer: Answer, output_tokens: int) -> JsonObject:
    return {
        # Anthropic counts what was read from the cache beside input_tokens, not within.
        "input_tokens": answer.input_tokens - answer.cached_input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached_input_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _message(
    call: Call, answer: Answer, content: list[JsonObject], output_tokens: int, stop_reason: str | None
) -> JsonObject:
    body: JsonObject = {
        "id": f"msg_fake{answer.number:020d}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [] if answer.without_choices else content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": None if answer.usage == "null" else _usage(answer, output_tokens),
    }
    if answer.usage == "missing":
        del body["usage"]
    return body


def reply(call: Call, answer: Answer) -> JsonObject:
    """The message that is not streamed."""
    content: list[JsonObject] = []
    if answer.reasoning_pieces:
        content.append({"type": "thinking", "thinking": "".join(answer.reasoning_pieces), "signature": "ZmFrZQ=="})
    if answer.pieces:
        content.append({"type": "text", "text": answer.text})
    content.extend(
        {"type": "tool_use", "id": f"toolu_{tool.call_id}", "name": tool.name, "input": _parsed(tool.arguments)}
        for tool in answer.tools
    )
    return _message(call, answer, content, answer.output_tokens, _STOP_REASONS[answer.finish])


def _parsed(arguments: str) -> object:
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}


def events(call: Call, answer: Answer) -> Iterator[Event]:
    """message_start, each content block (start, deltas, stop), message_delta, message_stop."""
    start: JsonObject = {"type": "message_start", "message": _message(call, answer, [], 1, None)}
    yield Event(named_event(start), reports_usage=answer.usage in ("normal", "every_chunk"))
    produced = 0
    for index, block in enumerate(_blocks(answer)):
        opening, deltas, closing = block
        yield Event(named_event({"type": "content_block_start", "index": index, "content_block": opening}))
        if index == 0:
            yield Event(named_event({"type": "ping"}))
        for delta in deltas:
            produced += 1
            yield _delta_event(answer, index, delta)
        if closing:
            yield Event(named_event({"type": "content_block_delta", "index": index, "delta": closing}))
        yield Event(named_event({"type": "content_block_stop", "index": index}))
    end: JsonObject = {
        "type": "message_delta",
        "delta": {"stop_reason": _STOP_REASONS[answer.finish], "stop_sequence": None},
        "usage": None if answer.usage == "null" else _usage(answer, produced),
    }
    if answer.usage == "missing":
        del end["usage"]
    yield Event(named_event(end), reports_usage=answer.usage in ("normal", "every_chunk"))
    for _ in range(answer.done_events):
        yield Event(named_event({"type": "message_stop"}))


_Block = tuple[JsonObject, Iterator[JsonObject], JsonObject]


def _blocks(answer: Answer) -> Iterator[_Block]:
    if answer.without_choices:
        return
    if answer.reasoning_pieces:
        opening: JsonObject = {"type": "thinking", "thinking": "", "signature": ""}
        thoughts: Iterator[JsonObject] = (
            {"type": "thinking_delta", "thinking": one} for one in answer.reasoning_pieces
        )
        yield opening, thoughts, {"type": "signature_delta", "signature": "ZmFrZQ=="}
    if answer.pieces or answer.endless:
        yield {"type": "text", "text": ""}, _text_deltas(answer), {}
    for tool in answer.tools:
        inputs: Iterator[JsonObject] = (
            {"type": "input_json_delta", "partial_json": one} for one in tool.argument_pieces
        )
        yield {"type": "tool_use", "id": f"toolu_{tool.call_id}", "name": tool.name, "input": {}}, inputs, {}


def _text_deltas(answer: Answer) -> Iterator[JsonObject]:
    for piece in answer.pieces:
        yield {"type": "text_delta", "text": piece}
    while answer.endless:
        yield {"type": "text_delta", "text": " more"}


def _delta_event(answer: Answer, index: int, delta: JsonObject) -> Event:
    payload: JsonObject = {"type": "content_block_delta", "index": index, "delta": delta}
    if answer.padding:
        payload["obfuscation"] = answer.padding
    return Event(named_event(payload), output_tokens=1)


def error_body(status: int, message: str) -> JsonObject:
    """The body of a refusal with this status."""
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake00000000000000000000"}


def error_event(message: str) -> bytes:
    """The event that ends a stream with an error."""
    return named_event({"type": "error", "error": {"type": "overloaded_error", "message": message}})


def count_reply(call: Call, answer: Answer) -> JsonObject:
    """The answer of count_tokens."""
    return {"input_tokens": answer.input_tokens}


def _no_events(call: Call, answer: Answer) -> Iterator[Event]:
    return iter(())


MESSAGES = Format(
    id_header="request-id",
    headers=ACCOUNT_HEADERS,
    read_call=read_call,
    reply=reply,
    events=events,
    error=error_body,
    error_event=error_event,
    reports_usage=lambda body: bool(body.get("usage")),
)
COUNT_TOKENS = Format(
    id_header="request-id",
    headers=ACCOUNT_HEADERS,
    read_call=read_count,
    reply=count_reply,
    events=_no_events,
    error=error_body,
    error_event=error_event,
    reports_usage=lambda body: False,
    free=True,
)
