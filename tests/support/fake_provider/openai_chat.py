"""OpenAI's `POST /v1/chat/completions`, as its reference and captured answers of November 2026 show it."""

from collections.abc import Iterator

from tests.support.fake_provider.answer import Answer, Call, JsonObject, Tool
from tests.support.fake_provider.openai_errors import ACCOUNT_HEADERS, error_body, error_event
from tests.support.fake_provider.tokens import count_json, count_messages
from tests.support.fake_provider.wire import (
    Event,
    Format,
    RequestInvalid,
    data_event,
    inner_object,
    last_user_text,
    objects_in,
    optional_count,
    required_text,
)

SYSTEM_FINGERPRINT = "fp_fake000001"


def read_call(body: JsonObject) -> Call:
    """The call that a chat completion's body asks for. Raises: RequestInvalid."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestInvalid("Missing required parameter: 'messages'.")
    response_format = inner_object(body, "response_format")
    user = body.get("user")
    return Call(
        model=required_text(body, "model"),
        user=user if isinstance(user, str) else None,
        stream=body.get("stream") is True,
        prompt_tokens=count_messages(messages) + count_json(body.get("tools")) + count_json(response_format),
        max_output_tokens=optional_count(body, "max_completion_tokens", "max_tokens"),
        choices=optional_count(body, "n") or 1,
        include_usage=inner_object(body, "stream_options").get("include_usage") is True,
        tools=tuple(_tool(one) for one in objects_in(body.get("tools")) if one.get("type") == "function"),
        must_call_tool=_must_call_tool(body.get("tool_choice")),
        schema=_schema(response_format),
        last_user_text=last_user_text(messages),
    )


def _tool(raw: JsonObject) -> Tool:
    function = inner_object(raw, "function")
    return Tool(name=str(function.get("name")), schema=inner_object(function, "parameters"))


def _must_call_tool(choice: object) -> str | None:
    if choice == "required":
        return ""
    name = inner_object(choice, "function").get("name")
    return name if isinstance(name, str) else None


def _schema(response_format: JsonObject) -> JsonObject | None:
    if response_format.get("type") == "json_schema":
        return inner_object(response_format, "json_schema", "schema")
    if response_format.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return None


def usage_object(answer: Answer, output_tokens: int) -> JsonObject:
    """The usage object after `output_tokens` were produced."""
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": answer.input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_input_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": min(answer.reasoning_tokens, output_tokens),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def reply(call: Call, answer: Answer) -> JsonObject:
    """The chat completion that is not streamed."""
    message: JsonObject = {
        "role": "assistant",
        "content": answer.text if answer.pieces or not answer.tools else None,
        "refusal": None,
        "annotations": [],
    }
    if answer.tools:
        message["tool_calls"] = [
            {
                "id": f"call_{tool.call_id}",
                "type": "function",
                "function": {"name": tool.name, "arguments": tool.arguments},
            }
            for tool in answer.tools
        ]
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish}
        for index in range(answer.choices)
    ]
    body: JsonObject = {
        "id": f"chatcmpl-fake{answer.number:08d}",
        "object": "chat.completion",
        "created": answer.created_s,
        "model": call.model,
        "choices": [] if answer.without_choices else choices,
        "usage": None if answer.usage == "null" else usage_object(answer, answer.output_tokens),
        "service_tier": "default",
        "system_fingerprint": SYSTEM_FINGERPRINT,
    }
    if answer.usage == "missing":
        del body["usage"]
    return body


def events(call: Call, answer: Answer) -> Iterator[Event]:
    """The chunks: role, content and tool calls, finish reason, usage when asked for, `[DONE]`."""
    produced = answer.reasoning_tokens
    if produced:
        # Hidden thinking is produced, and billed, before anything is shown.
        yield Event(b"", output_tokens=produced)
    indexes = range(answer.choices)
    role: JsonObject = {
        "role": "assistant",
        "content": None if answer.tools and not answer.pieces else "",
        "refusal": None,
    }
    for index in indexes:
        yield _chunk(call, answer, produced, index, role)
    for delta in _deltas(answer):
        tokens = 0 if _opens_tool(delta) else 1
        for index in indexes:
            produced += tokens
            yield _chunk(call, answer, produced, index, delta, output_tokens=tokens)
    for index in indexes:
        yield _chunk(call, answer, produced, index, {}, finish=answer.finish)
    if call.include_usage and answer.usage != "missing":
        last = _envelope(call, answer) | {"choices": []}
        last["usage"] = None if answer.usage == "null" else usage_object(answer, produced)
        yield Event(data_event(last), reports_usage=answer.usage != "null")
    for _ in range(answer.done_events):
        yield Event(b"data: [DONE]\n\n")


def _deltas(answer: Answer) -> Iterator[JsonObject]:
    for piece in answer.pieces:
        yield {"content": piece}
    while answer.endless:
        yield {"content": " more"}
    for index, tool in enumerate(answer.tools):
        head = {"name": tool.name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": f"call_{tool.call_id}", "type": "function", "function": head}]}
        for piece in tool.argument_pieces:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _opens_tool(delta: JsonObject) -> bool:
    return any("id" in one for one in objects_in(delta.get("tool_calls")))


def _chunk(
    call: Call,
    answer: Answer,
    produced: int,
    index: int,
    delta: JsonObject,
    *,
    output_tokens: int = 0,
    finish: str | None = None,
) -> Event:
    payload = _envelope(call, answer)
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    payload["choices"] = [] if answer.without_choices else [choice]
    if answer.usage == "every_chunk":
        payload["usage"] = usage_object(answer, produced)
    elif call.include_usage and answer.usage != "missing":
        payload["usage"] = None
    if answer.padding and output_tokens:
        payload["obfuscation"] = answer.padding
    return Event(data_event(payload), output_tokens, reports_usage=answer.usage == "every_chunk")


def _envelope(call: Call, answer: Answer) -> JsonObject:
    return {
        "id": f"chatcmpl-fake{answer.number:08d}",
        "object": "chat.completion.chunk",
        "created": answer.created_s,
        "model": call.model,
        "service_tier": "default",
        "system_fingerprint": SYSTEM_FINGERPRINT,
    }


CHAT = Format(
    id_header="x-request-id",
    headers=ACCOUNT_HEADERS,
    read_call=read_call,
    reply=reply,
    events=events,
    error=error_body,
    error_event=error_event,
    reports_usage=lambda body: bool(body.get("usage")),
)
