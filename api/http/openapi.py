"""The OpenAPI document: every refusal a route can make is in it, with its shape."""

from typing import Final

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import SecurityRequirement

from api.http.envelope import ErrorBody

BEARER: Final[list[SecurityRequirement]] = [{"bearer": []}]

_MEANING: Final = {
    400: "The request cannot be read: malformed JSON, a parameter of the wrong kind, a cursor that is not ours.",
    401: "Nobody is signed in, or the token is expired, forged, or of a session that has ended.",
    403: "You are signed in and may not do this.",
    404: "It does not exist, or you may not know that it does.",
    408: "The body came too slowly.",
    409: "It contradicts what is stored.",
    412: "Somebody changed it since you read it (`If-Match`).",
    413: "The body is larger than 10 MiB.",
    415: "The body is not JSON.",
    422: "Well-formed, but not valid: `details.fields` names every field at fault.",
    429: "Too many attempts; `Retry-After` says when to come back.",
    500: "Our mistake; `request_id` finds it in our logs.",
    503: "Something we depend on is down; `Retry-After` says when to come back.",
    504: "Something we depend on took too long.",
}
# What any route can meet that reaches Supabase.
_ALWAYS: Final = (400, 500, 503, 504)
_WITH_BODY: Final = (408, 413, 415, 422)


def refusals(*statuses: int, body: bool = False, public: bool = False) -> dict[int, ResponseSpec]:
    """The refusals of a route for its `responses=`: the given ones, and those that every such route has."""
    every = {*statuses, *_ALWAYS, *(_WITH_BODY if body else ()), *(() if public else (401,))}
    return {
        status: ResponseSpec(ErrorBody, description=_MEANING[status], generate_examples=False)
        for status in sorted(every)
    }
