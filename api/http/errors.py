"""Every refusal leaves here, in one shape, whoever refused."""

from typing import Any, Final

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from core.asgi import log_failure
from core.errors import (
    ButtressError,
    InternalFault,
    InvalidInput,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
)
from core.logging import get_logger
from core.request_id import new_request_id, request_id_var

_log = get_logger(__name__)

_BY_STATUS: Final[dict[int, type[ButtressError]]] = {
    404: NotFound,
    405: MethodNotAllowed,
    413: TooLarge,
    415: UnsupportedMediaType,
}

# Any: Litestar's generic slots for user, auth and state, which the handlers below do not look at.
AnyRequest = Request[Any, Any, Any]


def answer(error: ButtressError, *, extra_headers: dict[str, str] | None = None) -> Response[dict[str, object]]:
    """The refusal as it goes out; its headers are the error's own and the given ones."""
    request_id = request_id_var.get() or new_request_id()
    return Response(
        error.body(request_id),
        status_code=error.status,
        headers={**error.headers(), **(extra_headers or {})},
        media_type="application/json",
    )


def on_known_error(_: AnyRequest, error: ButtressError) -> Response[dict[str, object]]:
    """An error of our own tree is shown as it is; one that is not the caller's is logged with its cause."""
    log_failure(error)
    return answer(error)


def on_framework_error(_: AnyRequest, error: HTTPException) -> Response[dict[str, object]]:
    """What Litestar refuses by itself (unknown address, method, parameters) is said in our words."""
    if isinstance(error, ValidationException):
        return answer(_invalid_parameters(error))
    kind = _BY_STATUS.get(error.status_code)
    if kind is None and error.status_code >= 500:
        return on_unknown_error(_, error)
    return answer((kind or InvalidInput)(), extra_headers=dict(error.headers or {}))


def on_unknown_error(_: AnyRequest, error: Exception) -> Response[dict[str, object]]:
    """A mistake of ours: the log has the traceback, the caller has the request id."""
    _log.error("unhandled_error", exc_info=error)
    return answer(InternalFault())


def _invalid_parameters(error: ValidationException) -> ButtressError:
    faults = error.extra if isinstance(error.extra, list) else []
    if any(fault.get("key") == "data" for fault in faults):
        return InvalidInput("Send a JSON body.", code="body_missing")
    fields = [
        {"field": str(fault.get("key", ""))[:100], "code": "invalid", "message": str(fault["message"])[:200]}
        for fault in faults
    ]
    return InvalidInput("Some parameters are not valid.", code="invalid_parameter", details={"fields": fields})


EXCEPTION_HANDLERS: Final[ExceptionHandlersMap] = {
    ButtressError: on_known_error,
    HTTPException: on_framework_error,
    Exception: on_unknown_error,
}
