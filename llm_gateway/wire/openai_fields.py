"""What every request in OpenAI's formats may not carry, whichever endpoint it is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_gateway.wire.format import FieldRefused

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
_LONGEST_MODEL_NAME: Final = 256


def refuse_forbidden(body: Mapping[str, object], *, other_maxima: frozenset[str], use: str) -> None:
    """No field of the body gives instructions that are the operator's, or goes behind the back of the clamp.

    `other_maxima` are words for a maximum of output that this format does not have; `use` names the right ones.
    Raises: FieldRefused.
    """
    for field, value in body.items():
        _refuse_odd_spelling(field, shown(field))
        if field in _FORBIDDEN or field.startswith(_FORBIDDEN_PREFIXES):
            raise FieldRefused(
                shown(field),
                f"`{shown(field)}` is decided by the operator of this gateway and not accepted from clients.",
                code="forbidden_field",
            )
        if field in other_maxima and value is not None:
            raise FieldRefused(field, f"`{field}` is not accepted. Use {use}.", code="unsupported_parameter")


def check_spelling(fields: object, where: str) -> None:
    """All names of the object are written in lower case. Raises: FieldRefused."""
    for field in fields if isinstance(fields, dict) else ():
        _refuse_odd_spelling(field, where)


def model_name(body: Mapping[str, Any]) -> str:  # Any: JSON
    """The value of `model`. Raises: FieldRefused."""
    model = body.get("model")
    if not isinstance(model, str) or not model or len(model) > _LONGEST_MODEL_NAME:
        raise FieldRefused(
            "model", "`model` must be the name of a model; GET /llm/v1/models lists them.", code=type_code(model)
        )
    return model


def flag(body: Mapping[str, Any], field: str) -> bool:  # Any: JSON
    """The value of this field; false where it is missing. Raises: FieldRefused."""
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise FieldRefused(field, f"`{field}` must be true or false.", code="invalid_type")
    return bool(value)


def type_code(value: object) -> str:
    """OpenAI's code for a required field with this value, which is not of its type."""
    return "missing_required_parameter" if value is None else "invalid_type"


def shown(text: str) -> str:
    """As much of the client's own text as an error message repeats."""
    return text[:64]


def _refuse_odd_spelling(field: str, where: str) -> None:
    """Servers written in Go match names without their case, and the last one counts.

    So `Model` or `N` would pass every check here and still say there what the call costs; so would the Kelvin
    sign for a `k`.
    """
    if not field.isascii() or field != field.lower():
        raise FieldRefused(
            where,
            f"`{shown(field)}` is not a field of this format: names are written in lower case.",
            code="unknown_parameter",
        )
