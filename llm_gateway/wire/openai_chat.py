"""A chat completion request in OpenAI's format: what of it concerns us is checked, everything else passes untouched.

Source: OpenAI API reference, "Create chat completion" (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from core.errors import InvalidInput
from core.json_input import decode_object
from llm_gateway.limits.estimate import Estimate, ModelBounds
from llm_gateway.limits.estimate_chat import estimate_chat
from llm_gateway.wire.format import Endpoint, FieldRefused, FormatRequest, WholeAnswer
from llm_gateway.wire.openai_answer import ChatStream, read_completion
from llm_gateway.wire.openai_dialect import OPENAI, OpenAIDialect
from llm_gateway.wire.openai_fields import check_spelling, flag, model_name, refuse_forbidden, type_code

if TYPE_CHECKING:
    from llm_gateway.catalog import Deployment

# Other words for a maximum of output: behind the clamp's back, llama.cpp, vLLM, TGI and Ollama would follow them.
_OTHER_MAXIMA: Final = frozenset(
    {"max_length", "max_new_tokens", "max_output_tokens", "min_tokens", "n_predict", "num_predict", "options"}
)

# What the model may call. The others are run by the provider itself, at prices that the catalogue does not have.
_TOOL_TYPES: Final = frozenset({"custom", "function"})

_MAXIMA: Final = ("max_completion_tokens", "max_tokens")
_CHOICES: Final = frozenset({"n", "best_of"})


class ChatFormat:
    """`POST /v1/chat/completions`; see Format."""

    endpoint: Endpoint = "chat"
    dialect: OpenAIDialect = OPENAI

    def parse(self, raw: bytes, headers: Mapping[bytes, bytes], *, max_json_depth: int) -> FormatRequest:
        return parse_chat(raw, max_json_depth=max_json_depth)

    def estimate(self, request: FormatRequest, bounds: ModelBounds) -> Estimate:
        return estimate_chat(request.body, bounds)

    def check_translatable(self, request: FormatRequest) -> None:
        """Translating for another protocol, litellm would fetch pictures and files from inside our network."""
        for position, message in enumerate(request.body["messages"]):
            content = message.get("content")
            if isinstance(content, list) and any(remote_addresses(content)):
                raise InvalidInput(
                    "This model takes pictures and files only as data: URLs, not as addresses to fetch.",
                    code="unsupported_content",
                    details={"param": f"messages[{position}].content"},
                )

    def upstream_body(
        self, request: FormatRequest, deployment: Deployment, estimate: Estimate
    ) -> dict[str, Any]:  # Any: the client's fields pass through as they are
        body = {field: value for field, value in request.body.items() if field not in _MAXIMA}
        body["model"] = deployment.model
        body[deployment.max_output_field] = estimate.max_output_tokens
        for field in _CHOICES & body.keys():
            body[field] = body[field] and min(body[field], estimate.choices)
        if request.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return body

    def stream_reader(self, request: FormatRequest, *, held_tokens: int) -> ChatStream:
        return ChatStream(hide_usage=not request.wants_usage, held_tokens=held_tokens)

    def read_whole(self, raw: bytes) -> WholeAnswer:
        return read_completion(raw)


CHAT: Final = ChatFormat()


def parse_chat(raw: bytes, *, max_json_depth: int) -> FormatRequest:
    """The request that the bytes hold.

    Raises: InvalidInput, with the field's name in `details["param"]` where one is to blame.
    """
    body = decode_object(raw, max_json_depth)
    refuse_forbidden(body, other_maxima=_OTHER_MAXIMA, use="`max_completion_tokens` (or `max_tokens`) and `n`")
    _check_messages(body)
    _check_tools(body)
    stream = flag(body, "stream")
    return FormatRequest(
        body=body,
        model=model_name(body),
        stream=stream,
        wants_usage=_wants_usage(body, stream=stream),
    )


def remote_addresses(value: object) -> Iterator[str]:
    """Every http(s) address in a message part that is not text: somebody would have to fetch it."""
    if isinstance(value, dict):
        for field, inner in value.items():
            if field != "text":
                yield from remote_addresses(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from remote_addresses(inner)
    elif isinstance(value, str) and value[:8].lower().lstrip().startswith(
        ("http:", "https:", "file:", "ftp:", "gs:", "s3:")
    ):
        yield value


def _check_messages(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise FieldRefused("messages", "`messages` must be a list of at least one message.", code=type_code(messages))
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise FieldRefused(where, "Each of `messages` must be an object with a `role`.", code="invalid_type")
        check_spelling(message, where)
        _check_content(message.get("content"), f"{where}.content")


def _check_content(content: object, where: str) -> None:
    """One part alone, without its list, would be looked at by nobody here, and taken by a lenient server."""
    if content is not None and not isinstance(content, str | list):
        raise FieldRefused(where, "The `content` of a message must be a text or a list of parts.", code="invalid_type")
    for part in content if isinstance(content, list) else ():
        check_spelling(part, where)


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise FieldRefused("tools", "`tools` must be a list.", code="invalid_type")
    for position, tool in enumerate(tools):
        check_spelling(tool, f"tools[{position}]")
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind not in _TOOL_TYPES:
            raise FieldRefused(
                f"tools[{position}]",
                "Each of `tools` must have the `type` `function` or `custom`.",
                code="invalid_value",
            )


def _wants_usage(body: dict[str, Any], *, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise FieldRefused("stream_options", "`stream_options` is only allowed when `stream` is true.")
    if not isinstance(options, dict):
        raise FieldRefused("stream_options", "`stream_options` must be an object.", code="invalid_type")
    check_spelling(options, "stream_options")
    return flag(options, "include_usage")
