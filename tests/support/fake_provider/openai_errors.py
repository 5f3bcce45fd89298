"""What all of OpenAI's endpoints share: headers about the account, four fields in every error, an event for one."""

from tests.support.fake_provider.answer import JsonObject
from tests.support.fake_provider.wire import data_event

# The account's own limits and name, which a gateway must not hand on.
ACCOUNT_HEADERS = {
    "openai-organization": "org-fake-account",
    "openai-processing-ms": "1",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "5000",
    "x-ratelimit-limit-tokens": "800000",
    "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-remaining-tokens": "799000",
    "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-reset-tokens": "6ms",
}

# status -> (type, code), as captured from the service
_KINDS: dict[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("server_error", None),
}


def error_body(status: int, message: str) -> JsonObject:
    """The body of a refusal with this status."""
    kind, code = _KINDS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_event(message: str) -> bytes:
    """The event that ends a stream with an error."""
    return data_event({"error": {"message": message, "type": "server_error", "param": None, "code": None}})
