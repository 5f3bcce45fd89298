"""OpenAI's `POST /v1/responses`: text and function calls, streamed or not; nothing is stored."""

from collections.abc import Iterator
from itertools import count

from tests.support.fake_provider.answer import Answer, Call, CalledTool, JsonObject, Tool
from tests.support.fake_provider.openai_errors import ACCOUNT_HEADERS, error_body
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

_WHY_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def read_call(body: JsonObject) -> Call:
    """The call that a response's body asks for. Raises: RequestInvalid."""
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise RequestInvalid("Missing required parameter: 'input'.")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    choice = body.get("tool_choice")
    named = inner_object(choice).get("name")
    structure = inner_object(body, "text", "format")
    user = body.get("user")
    return Call(
        model=required_text(body, "model"),
        user=user if isinstance(user, str) else None,
        stream=body.get("stream") is True,
        prompt_tokens=count_messages(messages)
        + count_content(body.get("instructions"))
        + count_json(body.get("tools"))
        + count_json(structure),
        max_output_tokens=optional_count(body, "max_output_tokens"),
        tools=tuple(
            Tool(name=str(one.get("name")), schema=inner_object(one, "parameters"))
            for one in objects_in(body.get("tools"))
            if one.get("type") == "function"
        ),
        must_call_tool="" if choice == "required" else named if isinstance(named, str) else None,
        schema=inner_object(structure, "schema") or None,
        last_user_text=last_user_text(messages),
    )


def _usage(answer: Answer) -> JsonObject:
    return {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {"cached_tokens": answer.cached_input_tokens, "cache_write_tokens": 0},
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


def _text_part(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message_item(answer: Answer, text: str, status: str) -> JsonObject:
    content = [_text_part(text)] if status == "completed" else []
    item_id = f"msg_fake{answer.number:08d}"
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _function_item(tool: CalledTool, arguments: str, status: str) -> JsonObject:
    return {
        "id": f"fc_{tool.call_id}",
        "type": "function_call",
        "status": status,
        "call_id": f"call_{tool.call_id}",
        "name": tool.name,
        "arguments": arguments,
    }


def _output(answer: Answer) -> list[JsonObject]:
    items = [_message_item(answer, answer.text, "completed")] if answer.pieces else []
    return items + [_function_item(tool, tool.arguments, "completed") for tool in answer.tools]


def _response(call: Call, answer: Answer, status: str, output: list[JsonObject]) -> JsonObject:
    finished = status != "in_progress"
    body: JsonObject = {
        "id": f"resp_fake{answer.number:08d}",
        "object": "response",
        "created_at": answer.created_s,
        "status": status,
        "error": answer.failure if finished else None,
        "incomplete_details": {"reason": _WHY_INCOMPLETE[answer.finish]} if status == "incomplete" else None,
        "instructions": None,
        "max_output_tokens": call.max_output_tokens,
        "metadata": {},
        "model": call.model,
        "output": [] if answer.without_choices else output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(answer) if finished and answer.usage != "null" else None,
        "user": call.user,
    }
    if answer.usage == "missing":
        del body["usage"]
    return body


def _final_status(answer: Answer) -> str:
    if answer.failure is not None:
        return "failed"
    return "incomplete" if answer.finish in _WHY_INCOMPLETE else "completed"


def reply(call: Call, answer: Answer) -> JsonObject:
    """The response that is not streamed."""
    return _response(call, answer, _final_status(answer), _output(answer))


class _Numbered:
    """Makes the events of one stream, numbered from 0."""

    def __init__(self, padding: str) -> None:
        self._next = count()
        self._padding = padding

    def event(self, kind: str, fields: JsonObject, *, tokens: int = 0, usage: bool = False) -> Event:
        payload: JsonObject = {"type": kind, "sequence_number": next(self._next), **fields}
        if self._padding and tokens:
            payload["obfuscation"] = self._padding
        return Event(named_event(payload), tokens, reports_usage=usage)


def events(call: Call, answer: Answer) -> Iterator[Event]:
    """response.created, in_progress, each output item with its parts and deltas; completed, incomplete or failed."""
    numbered = _Numbered(answer.padding)
    opening = _response(call, answer, "in_progress", [])
    yield numbered.event("response.created", {"response": opening})
    yield numbered.event("response.in_progress", {"response": opening})
    if answer.reasoning_tokens:
        yield Event(b"", output_tokens=answer.reasoning_tokens)
    index = 0
    if answer.pieces or answer.endless:
        yield from _text_events(numbered, answer)
        index = 1
    for position, tool in enumerate(answer.tools, start=index):
        yield from _function_events(numbered, tool, position)
    status = _final_status(answer)
    closing = _response(call, answer, status, _output(answer))
    yield numbered.event(f"response.{status}", {"response": closing}, usage=bool(closing.get("usage")))


def _text_events(numbered: _Numbered, answer: Answer) -> Iterator[Event]:
    added = {"output_index": 0, "item": _message_item(answer, "", "in_progress")}
    yield numbered.event("response.output_item.added", added)
    place: JsonObject = {"item_id": f"msg_fake{answer.number:08d}", "output_index": 0, "content_index": 0}
    yield numbered.event("response.content_part.added", {"part": _text_part(""), **place})
    for piece in _pieces(answer):
        yield numbered.event("response.output_text.delta", {"delta": piece, "logprobs": [], **place}, tokens=1)
    yield numbered.event("response.output_text.done", {"text": answer.text, "logprobs": [], **place})
    yield numbered.event("response.content_part.done", {"part": _text_part(answer.text), **place})
    done = {"output_index": 0, "item": _message_item(answer, answer.text, "completed")}
    yield numbered.event("response.output_item.done", done)


def _function_events(numbered: _Numbered, tool: CalledTool, position: int) -> Iterator[Event]:
    added = {"output_index": position, "item": _function_item(tool, "", "in_progress")}
    yield numbered.event("response.output_item.added", added)
    place: JsonObject = {"item_id": f"fc_{tool.call_id}", "output_index": position}
    for piece in tool.argument_pieces:
        yield numbered.event("response.function_call_arguments.delta", {"delta": piece, **place}, tokens=1)
    finished = {"arguments": tool.arguments, "name": tool.name, **place}
    yield numbered.event("response.function_call_arguments.done", finished)
    done = {"output_index": position, "item": _function_item(tool, tool.arguments, "completed")}
    yield numbered.event("response.output_item.done", done)


def _pieces(answer: Answer) -> Iterator[str]:
    yield from answer.pieces
    while answer.endless:
        yield " more"


def error_event(message: str) -> bytes:
    """The event that ends a stream with an error."""
    return named_event(
        {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}
    )


RESPONSES = Format(
    id_header="x-request-id",
    headers=ACCOUNT_HEADERS,
    read_call=read_call,
    reply=reply,
    events=events,
    error=error_body,
    error_event=error_event,
    reports_usage=lambda body: bool(body.get("usage")),
)
