"""How OpenAI refuses: four fields in every error, an error as the data of an event within a stream."""

from tests.support.fake_provider.answer import JsonObject
from tests.support.fake_provider.wire import data_event

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
