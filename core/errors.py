"""Every error a caller may see, drawn once.

    ButtressError(code, status, message, details, retry_after_s)
    ├── CallerError                     the caller's: doing the same again will fail again
    │   ├── InvalidInput          400
    │   ├── NotAuthenticated      401
    │   ├── NotAllowed            403
    │   ├── NotFound              404
    │   ├── MethodNotAllowed      405
    │   ├── RequestTimeout        408
    │   ├── Conflict              409
    │   ├── PreconditionFailed    412
    │   ├── TooLarge              413
    │   ├── UnsupportedMediaType  415
    │   ├── Unprocessable         422
    │   └── TooManyRequests       429   retry_after_s
    ├── InternalFault             500   ours
    └── UpstreamError                   somebody else's: the same request may work later
        ├── BadGateway            502
        ├── Unavailable           503   retry_after_s
        └── GatewayTimeout        504

`code` is stable and for programs, `message` is whole sentences for people. Both, and `details`, are shown to the
caller, so nothing internal may stand in them: raise with `from cause`, the cause is logged with the request id.
Features subclass these where they raise them and name the fact: `class SlugTaken(Conflict)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar


class ButtressError(Exception):
    """The request failed for a reason that the caller may read."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal_error"
    default_message: ClassVar[str] = "Something went wrong on our side. Quote the request id when you report it."

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.message = message or self.default_message
        self.details: dict[str, object] | None = dict(details) if details is not None else None
        self.retry_after_s = retry_after_s
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def headers(self) -> dict[str, str]:
        """The HTTP headers this error asks for; `Retry-After` is whole seconds, rounded up, at least 1 (RFC 9110)."""
        if self.retry_after_s is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(self.retry_after_s)))}

    def body(self, request_id: str) -> dict[str, object]:
        """The API's failure envelope: `{"error": {"code", "message", "details", "request_id"}}`."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "details": self.details,
                "request_id": request_id,
            }
        }


class CallerError(ButtressError):
    """The caller's request cannot be fulfilled as it stands (4xx)."""

    status = 400
    default_code = "invalid_request"
    default_message = "The request is not valid."


class InvalidInput(CallerError):
    """The request cannot be read: broken syntax, wrong encoding, a value of the wrong kind."""


class NotAuthenticated(CallerError):
    """Nobody proved who is asking."""

    status = 401
    default_code = "not_authenticated"
    default_message = "Sign in first: send an access token as `Authorization: Bearer <token>`."

    def headers(self) -> dict[str, str]:
        # RFC 9110 section 11.6.1: a 401 names the scheme that would be accepted.
        return {**super().headers(), "www-authenticate": "Bearer"}


class NotAllowed(CallerError):
    """We know who is asking, and that they may not do this."""

    status = 403
    default_code = "not_allowed"
    default_message = "You are not allowed to do this."


class NotFound(CallerError):
    """It does not exist, or the caller may not know that it does."""

    status = 404
    default_code = "not_found"
    default_message = "There is nothing here with this address."


class MethodNotAllowed(CallerError):
    """The address exists and does not answer this HTTP method."""

    status = 405
    default_code = "method_not_allowed"
    default_message = "This address does not answer this HTTP method."


class RequestTimeout(CallerError):
    """The caller took too long to send what it announced."""

    status = 408
    default_code = "request_timeout"
    default_message = "The body came too slowly, so the request was given up. Send it again."


class IncompleteBody(CallerError):
    """The body ended before it was complete, or what came is no HTTP. Whoever left does not hear of it."""

    status = 400
    default_code = "incomplete_body"
    default_message = "The body of the request ended before it was complete, or its framing is no HTTP. Send it again."


class Conflict(CallerError):
    """The request contradicts what is stored now."""

    status = 409
    default_code = "conflict"
    default_message = "This contradicts what is stored now. Load it again and retry."


class PreconditionFailed(CallerError):
    """Somebody changed the resource since the caller read it (`If-Match`)."""

    status = 412
    default_code = "precondition_failed"
    default_message = "Somebody else changed this since you loaded it. Load it again and retry."


class TooLarge(CallerError):
    """The request is larger than we read."""

    status = 413
    default_code = "request_too_large"
    default_message = "The request is too large."


class UnsupportedMediaType(CallerError):
    """The body's format or encoding is not one we read."""

    status = 415
    default_code = "unsupported_media_type"
    default_message = "The body must be JSON, sent as `Content-Type: application/json` without a content encoding."


class Unprocessable(CallerError):
    """The request can be read and breaks a rule."""

    status = 422
    default_code = "unprocessable"
    default_message = "The request breaks a rule."


class TooManyRequests(CallerError):
    """A limit is reached; `retry_after_s` says when to come back."""

    status = 429
    default_code = "too_many_requests"
    default_message = "A limit is reached. Wait, then retry."


class InternalFault(ButtressError):
    """Our own mistake. The cause is in the log, under the request id."""


class UpstreamError(ButtressError):
    """Something we depend on failed."""

    status = 502
    default_code = "bad_gateway"
    default_message = "A service we depend on gave an answer we cannot use. Retry later."


class BadGateway(UpstreamError):
    """A service we depend on answered, and the answer is of no use."""


class Unavailable(UpstreamError):
    """A service we depend on cannot be reached, so nothing was done; the answer carries `Retry-After`."""

    status = 503
    default_code = "unavailable"
    default_message = "The service is not available right now. Retry shortly."

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        details: Mapping[str, object] | None = None,
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(message, code=code, details=details, retry_after_s=retry_after_s)


class GatewayTimeout(UpstreamError):
    """A service we depend on did not answer in time; whether it did the work is not known."""

    status = 504
    default_code = "timeout"
    default_message = "A service we depend on did not answer in time."
