"""Request bodies: JSON and nothing else, decoded with limits, then validated to the last field."""

from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import InvalidInput, Unprocessable, UnsupportedMediaType
from core.json_input import decode_json
from core.tokens import Claims

_JSON_MEDIA_TYPES = frozenset({"application/json", "application/merge-patch+json"})


class RequestModel(BaseModel):
    """Base of every request body: no coercion, no field that is not named."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class StrictRequest(Request[Any, Claims, State]):  # Any: Litestar's user slot, which we leave empty
    """A request whose body has been checked before a handler sees it.

    Litestar's own decoder answers 500 to deep JSON and to invalid UTF-8, and its own reporting of pydantic's
    errors answers 500 when an unknown field is named like one of our dependencies (measured on 2.25.0), so
    both steps are done here, and Litestar is handed a finished model.
    """

    async def body(self) -> bytes:
        """The whole body. Raises: InvalidInput when the client left before it was complete: no fault of ours."""
        try:
            return await super().body()
        except InternalServerException as cause:  # what Litestar calls it, with a traceback in the log for each
            raise InvalidInput("The connection was closed before the body was complete.", code="body_cut") from cause

    async def json(self) -> Any:  # Any: Litestar's signature; the handler's `data` annotation says what it is
        """The body is an instance of the model the handler asks for.

        Raises: UnsupportedMediaType, InvalidInput (not JSON), Unprocessable (JSON that does not fit).
        """
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in _JSON_MEDIA_TYPES:
            raise UnsupportedMediaType(
                "Send the body as application/json.", details={"accepted": sorted(_JSON_MEDIA_TYPES)}
            )
        decoded = decode_json(await self.body(), self.app.state.services.settings.max_json_depth)
        field = self.route_handler.parsed_data_field
        if field is None:
            raise AssertionError("json() is called for handlers with `data` only")
        return validate(field.annotation, decoded)


def validate(model: type[BaseModel], decoded: object) -> BaseModel:
    """The decoded body fits the model.

    Raises: Unprocessable with `details.fields`, one entry a fault: `field` (dotted path), `code`, `message`.
    """
    try:
        return model.model_validate(decoded)
    except ValidationError as fault:
        fields = [
            {
                "field": ".".join(_printable(part) for part in error["loc"]),
                "code": error["type"],
                "message": _OUR_WORDS.get(error["type"], error["msg"].removeprefix("Value error, ")),
            }
            for error in fault.errors(include_url=False, include_context=False, include_input=False)[:_MAX_FAULTS]
        ]
        raise Unprocessable(
            "Some fields are not valid.", code="validation_failed", details={"fields": fields}
        ) from None


# pydantic's own words for these name our classes
_OUR_WORDS = {"model_type": "Must be a JSON object"}
# A body of ten thousand unknown fields must not buy an answer of ten thousand sentences.
_MAX_FAULTS = 50


def _printable(part: int | str) -> str:
    """A field name as it may be echoed: short, and encodable whatever the client put in it."""
    return str(part)[:100].encode("utf-8", "replace").decode()
