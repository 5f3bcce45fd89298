"""A chat completion request in OpenAI's format: what of it concerns us is checked, everything else passes untouched.

Source: OpenAI API reference, "Create chat completion" (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from core.errors import InvalidInput
from core.json_input import decode_json
from llm_gateway.limits.estimate import Estimate, ModelBounds, estimate_chat
from llm_gateway.wire.format import Endpoint, FieldRefused, FormatRequest, WholeAnswer
from llm_gateway.wire.openai_answer import ChatStream, read_completion
from llm_gateway.wire.openai_dialect import OPENAI, OpenAIDialect

if TYPE_CHECKING:
    from llm_gateway.catalog import Deployment

# Where a request goes, and with whose credentials, is the operator's business. From these fields servers and litellm
# take such instructions; one accepted `api_base` sends the provider's key to a stranger (CVE-2024-6587), one accepted
# `models` has OpenRouter answer with a model of another price. Servers of open models take more: a prompt template of
# the request's own (sixty bytes of it can fill any context), code to run, hosts to fetch state from.
_FORBIDDEN: Final = frozenset(
    """
    api_base api_key api_type api_version base_model base_url bootstrap_host bootstrap_port bootstrap_room caching
    callbacks chat_template client client_session context_window_fallback_dict cooldown_time custom_llm_provider
    custom_logit_processor custom_prompt_dict default_headers deployment_id endpoint extra_body extra_headers
    extra_query fallbacks force_timeout google headers host http_client initial_prompt_value input_cost_per_token
    kv_transfer_params litellm_call_id litellm_credential_name litellm_logging_obj litellm_metadata litellm_params
    litellm_trace_id logger_fn logits_processors lora_path max_retries mock_response mock_timeout mock_tool_calls
    model_config model_info model_list models num_retries organization output_cost_per_token plugins preset
    preset_cache_key provider proxies proxy proxy_server_request region_name request_timeout retry_policy
    retry_strategy roles route ssl_verify timeout transforms url user_config user_continue_message verbose_logging
    """.split()  # noqa: SIM905 -- one word a line reads worse
)
_FORBIDDEN_PREFIXES: Final = ("aws_", "azure_", "gcs_", "litellm_", "vertex_", "watsonx_")

# Other words for a maximum of output: behind the clamp's back, llama.cpp, vLLM, TGI and Ollama would follow them.
_OTHER_MAXIMA: Final = frozenset(
    {"max_length", "max_new_tokens", "max_output_tokens", "min_tokens", "n_predict", "num_predict", "options"}
)

# What the model may call. The others are run by the provider itself, at prices that the catalogue does not have.
_TOOL_TYPES: Final = frozenset({"custom", "function"})

_MAXIMA: Final = ("max_completion_tokens", "max_tokens")


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
    body = decode_json(raw, max_json_depth)
    if not isinstance(body, dict):
        raise InvalidInput("The body must be a JSON object.", code="invalid_json")
    _refuse_forbidden(body)
    _check_messages(body)
    _check_tools(body)
    stream = _flag(body, "stream")
    return FormatRequest(
        body=body,
        model=_model(body),
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


def _refuse_forbidden(body: dict[str, Any]) -> None:
    for field, value in body.items():
        _refuse_odd_spelling(field, _shown(field))
        if field in _FORBIDDEN or field.startswith(_FORBIDDEN_PREFIXES):
            raise FieldRefused(
                _shown(field),
                f"`{_shown(field)}` is decided by the operator of this gateway and not accepted from clients.",
                code="forbidden_field",
            )
        if field in _OTHER_MAXIMA and value is not None:
            raise FieldRefused(
                field,
                f"`{field}` is not accepted. Use `max_completion_tokens` (or `max_tokens`) and `n`.",
                code="unsupported_parameter",
            )


def _check_spelling(fields: object, where: str) -> None:
    for field in fields if isinstance(fields, dict) else ():
        _refuse_odd_spelling(field, where)


def _refuse_odd_spelling(field: str, where: str) -> None:
    """Servers written in Go match names without their case, and the last one counts.

    So `Model` or `N` would pass every check here and still say there what the call costs; so would the Kelvin
    sign for a `k`.
    """
    if not field.isascii() or field != field.lower():
        raise FieldRefused(
            where,
            f"`{_shown(field)}` is not a field of this format: names are written in lower case.",
            code="unknown_parameter",
        )


def _check_messages(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise FieldRefused(
            "messages", "`messages` must be a list of at least one message.", code=_code(body, "messages")
        )
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise FieldRefused(where, "Each of `messages` must be an object with a `role`.", code="invalid_type")
        _check_spelling(message, where)
        _check_content(message.get("content"), f"{where}.content")


def _check_content(content: object, where: str) -> None:
    """One part alone, without its list, would be looked at by nobody here, and taken by a lenient server."""
    if content is not None and not isinstance(content, str | list):
        raise FieldRefused(where, "The `content` of a message must be a text or a list of parts.", code="invalid_type")
    for part in content if isinstance(content, list) else ():
        _check_spelling(part, where)


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise FieldRefused("tools", "`tools` must be a list.", code="invalid_type")
    for position, tool in enumerate(tools):
        _check_spelling(tool, f"tools[{position}]")
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind not in _TOOL_TYPES:
            raise FieldRefused(
                f"tools[{position}]",
                "Each of `tools` must have the `type` `function` or `custom`.",
                code="invalid_value",
            )


def _model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model or len(model) > 256:
        raise FieldRefused(
            "model", "`model` must be the name of a model; GET /llm/v1/models lists them.", code=_code(body, "model")
        )
    return model


def _code(body: dict[str, Any], field: str) -> str:
    return "missing_required_parameter" if body.get(field) is None else "invalid_type"


def _flag(body: dict[str, Any], field: str) -> bool:
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise FieldRefused(field, f"`{field}` must be true or false.", code="invalid_type")
    return bool(value)


def _wants_usage(body: dict[str, Any], *, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise FieldRefused("stream_options", "`stream_options` is only allowed when `stream` is true.")
    if not isinstance(options, dict):
        raise FieldRefused("stream_options", "`stream_options` must be an object.", code="invalid_type")
    _check_spelling(options, "stream_options")
    return _flag(options, "include_usage")


def _shown(field: str) -> str:
    return field[:64]
