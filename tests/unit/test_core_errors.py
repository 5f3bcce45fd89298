"""Every error a caller may see has a status, a stable code and a sentence, and shows nothing else."""

from __future__ import annotations

import pytest

from core import errors
from core.errors import (
    ButtressError,
    CallerError,
    NotAuthenticated,
    NotFound,
    TooManyRequests,
    Unavailable,
    UpstreamError,
)

STATUS = {
    "InvalidInput": 400,
    "NotAuthenticated": 401,
    "NotAllowed": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "RequestTimeout": 408,
    "Conflict": 409,
    "PreconditionFailed": 412,
    "TooLarge": 413,
    "UnsupportedMediaType": 415,
    "Unprocessable": 422,
    "TooManyRequests": 429,
    "InternalFault": 500,
    "BadGateway": 502,
    "Unavailable": 503,
    "GatewayTimeout": 504,
}


@pytest.mark.parametrize(("name", "status"), STATUS.items())
def test_each_error_speaks_for_itself(name: str, status: int) -> None:
    error: ButtressError = getattr(errors, name)()
    assert error.status == status
    assert error.code.replace("_", "").isalpha()
    assert error.message.endswith(".")
    assert error.message[0].isupper()
    assert isinstance(error, CallerError) == (status < 500)
    assert isinstance(error, UpstreamError) == (status > 500)
    assert name in (errors.__doc__ or "")


def test_a_feature_says_it_in_its_own_words() -> None:
    error = NotFound("There is no workspace with this id.", code="workspace_not_found", details={"id": "1"})
    assert error.body("req_1") == {
        "error": {
            "code": "workspace_not_found",
            "message": "There is no workspace with this id.",
            "details": {"id": "1"},
            "request_id": "req_1",
        }
    }
    assert str(error) == "workspace_not_found: There is no workspace with this id."


@pytest.mark.parametrize(("after_s", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (59.5, "60")])
def test_retry_after_is_whole_seconds_and_never_too_early(after_s: float, header: str) -> None:
    assert TooManyRequests(retry_after_s=after_s).headers() == {"retry-after": header}


def test_only_errors_that_may_pass_say_when_to_retry() -> None:
    assert Unavailable().headers() == {"retry-after": "1"}
    assert NotFound().headers() == {}
    assert NotAuthenticated().headers() == {"www-authenticate": "Bearer"}


def test_details_are_a_copy() -> None:
    details: dict[str, object] = {"a": 1}
    error = NotFound(details=details)
    details["a"] = 2
    assert error.details == {"a": 1}
