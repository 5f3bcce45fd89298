"""JSON from strangers, read safely: whatever is sent, the answer is a value or `InvalidInput`, never a fault of ours."""

from __future__ import annotations

import orjson

from core.errors import InvalidInput


def decode_json(raw: bytes, max_depth: int = 64) -> object:
    """The value that `raw` holds: dict, list, str, int, float, bool or None; objects have no duplicate keys.

    Raises: InvalidInput (`invalid_json`) for invalid UTF-8 or syntax, nesting deeper than `max_depth`, duplicate keys,
    NUL characters (PostgreSQL's text cannot hold them), NaN, Infinity and integers beyond 64 bits.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("The body is not valid JSON.", code="invalid_json") from error
