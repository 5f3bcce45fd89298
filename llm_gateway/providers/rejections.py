"""Refusals of providers, by table: what they mean to us, and the little of them that a client may see.

A provider's own sentence may echo its key, its address, its organisation or somebody's prompt, so no sentence passes.
A code passes when it is one of OpenAI's that we know; the name of a field when the client sent that field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import orjson

from llm_gateway.providers.contract import FailureKind, ProviderFailure

_KIND_OF_STATUS: Final[Mapping[int, FailureKind]] = {
    400: FailureKind.REJECTED,
    401: FailureKind.CREDENTIAL,
    402: FailureKind.CREDENTIAL,
    403: FailureKind.CREDENTIAL,
    404: FailureKind.MODEL_MISSING,
    405: FailureKind.MODEL_MISSING,
    408: FailureKind.OVERLOADED,
    409: FailureKind.OVERLOADED,
    413: FailureKind.REJECTED,
    415: FailureKind.REJECTED,
    422: FailureKind.REJECTED,
    424: FailureKind.BROKEN,  # Bedrock, of a model that failed
    429: FailureKind.RATE_LIMITED,
    503: FailureKind.OVERLOADED,
    529: FailureKind.OVERLOADED,
}

KNOWN_CODES: Final = frozenset(
    """
    array_above_max_length content_filter content_policy_violation context_length_exceeded empty_array empty_string
    image_content_policy_violation image_parse_error image_too_large integer_above_max_value integer_below_min_value
    invalid_base64_image invalid_image invalid_image_format invalid_image_url invalid_json invalid_prompt
    invalid_request invalid_type invalid_value missing_required_parameter string_above_max_length unknown_parameter
    unsupported_parameter unsupported_value
    """.split()  # noqa: SIM905 -- one word a line reads worse
)

# After the client's own field only places within it: words without digits (no key hides there) and positions.
_PARAM: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\[\d{1,6}\]|\.[a-z_]{1,24}|\.\d{1,6})*")
_MAX_PARAM_LENGTH: Final = 128
RETRY_HEADERS: Final = ("retry-after-ms", "retry-after")
_MAX_RETRY_AFTER_S: Final = 3600.0


def failure_from_answer(
    status: int, headers: Mapping[str, str], raw: bytes, *, sent: Mapping[str, object]
) -> ProviderFailure:
    """The failure that a provider's answer with this status (never 200) is; `sent` is the request's body.

    Of `headers` (names in lower case) only RETRY_HEADERS are read.
    """
    kind = _KIND_OF_STATUS.get(status, FailureKind.REJECTED if 400 <= status < 500 else FailureKind.BROKEN)
    code, param = _known_words(raw, sent) if kind is FailureKind.REJECTED else (None, None)
    return ProviderFailure(kind, status, retry_after_of(headers), code, param)


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait by `retry-after-ms` (OpenAI's and Azure's, the finer one), else by `retry-after`."""
    try:
        milliseconds = float(headers.get("retry-after-ms", ""))
    except ValueError:
        return read_retry_after(headers.get("retry-after"))
    return read_retry_after(str(milliseconds / 1000))


def read_retry_after(header: str | None) -> float | None:
    """The seconds that a `Retry-After` header asks for (a number or a date), at most an hour; None for nonsense."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    if not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _known_words(raw: bytes, sent: Mapping[str, object]) -> tuple[str | None, str | None]:
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None, None
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return None, None
    code, param = error.get("code"), error.get("param")
    return (
        code if isinstance(code, str) and code in KNOWN_CODES else None,
        param if isinstance(param, str) and _names_field(param, sent) else None,
    )


def _names_field(param: str, sent: Mapping[str, object]) -> bool:
    if len(param) > _MAX_PARAM_LENGTH or not _PARAM.fullmatch(param):
        return False
    return re.split(r"[.\[]", param, maxsplit=1)[0] in sent
