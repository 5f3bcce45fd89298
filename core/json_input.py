"""JSON from strangers, read safely: whatever is sent, out comes a value or an error of the caller's, never a fault.

orjson decides what is JSON. What it lets through (nesting up to 1,024 levels, duplicate keys, NUL characters, integers
that lose digits) is found by scanning the bytes with C-speed primitives, so that a hostile body costs little more than
a plain one. docs/decisions/0042 has the measurements.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any, Final

import orjson

from core.errors import InvalidInput, TooLarge

MAX_VALUES: Final = 500_000

_OPENS_AND_CLOSES: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))
_LONG_NUMBER: Final = re.compile(rb"[0-9.eE+-]{19,}")


def decode_json(raw: bytes, max_depth: int = 64) -> object:
    """The value that `raw` holds: dict, list, str, int, float, bool or None; no object has the same key twice.

    Raises: InvalidInput (`invalid_json`, `json_too_deep`, `json_duplicate_key`, `json_nul_character`,
    `json_number_out_of_range`) and TooLarge (`json_too_many_values`: more than 500,000 keys, values and brackets).
    NaN, Infinity, a byte order mark, invalid UTF-8 and lone surrogates are `invalid_json`.
    """
    structure = _structure(raw)
    if structure.count(b"[") + structure.count(b"{") > max_depth and _depth(structure) > max_depth:
        raise InvalidInput(f"The JSON nests deeper than {max_depth} levels.", code="json_too_deep")
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"The body is not valid JSON (line {error.lineno}, column {error.colno}).",
            code="invalid_json",
            details={"line": error.lineno, "column": error.colno},
        ) from error
    if any(_is_too_large_integer(number) for number in _LONG_NUMBER.findall(structure)):
        raise InvalidInput("The JSON has an integer that does not fit in 64 bits.", code="json_number_out_of_range")
    colons = structure.count(b":")
    if colons and _key_count(value) != colons:
        raise InvalidInput("The JSON has the same key twice in one object.", code="json_duplicate_key")
    return value


def decode_object(raw: bytes, max_depth: int = 64) -> dict[str, Any]:  # Any: JSON
    """The JSON object that the bytes hold. Raises: as decode_json, and InvalidInput for any other value."""
    value = decode_json(raw, max_depth)
    if not isinstance(value, dict):
        raise InvalidInput("The body must be a JSON object.", code="invalid_json")
    return value


def _structure(raw: bytes) -> bytes:
    """What stands outside the strings of `raw`. Meaningless unless `raw` is valid JSON, which is not known yet."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"")  # pairs first: the rest of the backslashes are one escape each
        if b"\\u0000" in raw:
            raise InvalidInput("The JSON has a NUL character (\\u0000) in a string.", code="json_nul_character")
        raw = raw.replace(b'\\"', b"")
    if raw.count(b'"') > 2 * MAX_VALUES:
        raise _too_many_values()
    structure = b"".join(raw.split(b'"')[::2])
    if sum(structure.count(mark) for mark in (b",", b":", b"[", b"{")) > MAX_VALUES:
        raise _too_many_values()
    return structure


def _too_many_values() -> TooLarge:
    return TooLarge(f"The JSON has more than {MAX_VALUES:,} keys and values.", code="json_too_many_values")


def _depth(structure: bytes) -> int:
    """The deepest level of brackets; orjson makes sure later that they match."""
    steps = memoryview(structure.translate(_OPENS_AND_CLOSES, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0)


def _is_too_large_integer(number: bytes) -> bool:
    digits = number.removeprefix(b"-")
    return digits.isdigit() and (len(digits) > 19 or int(digits) >= 2**63)


def _key_count(value: object) -> int:
    """How many keys all objects within `value` have: fewer than the colons when one of them swallowed a duplicate."""
    count = 0
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            count += len(current)
            pending += [child for child in current.values() if isinstance(child, dict | list)]
        elif isinstance(current, list):
            pending += [child for child in current if isinstance(child, dict | list)]
    return count
