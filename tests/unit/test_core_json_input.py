"""Whatever a stranger sends as JSON: a value or a refusal, soon, and never a fault."""

from __future__ import annotations

import contextlib
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CallerError, InvalidInput, TooLarge
from core.json_input import MAX_VALUES, decode_json
from tests.support.untraced import cpu_s

MEGABYTE = 2**20


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "true",
        "-0.5e3",
        '""',
        "[]",
        "{}",
        ' { "a" : [ 1 , 2 ] } ',
        '{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}',
        '{"a:b,[{":"c:d","e\\"f:":1}',
        r'["\\", "\\\\u0000", "\\\"", "\u0041"]',
        '{"emoji":"🙂","escaped":"\\ud83d\\ude42"}',
        "[9223372036854775807,-9223372036854775807]",
        "[0.1234567890123456789012345678901234567890, 1e-400, 12345678901234567890e-10, 1E+30]",
    ],
)
def test_json_is_read_as_it_is(text: str) -> None:
    assert decode_json(text.encode()) == json.loads(text)


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "invalid_json"),
    "a word": (b"hello", "invalid_json"),
    "half an object": (b'{"a":', "invalid_json"),
    "two values": (b"1 2", "invalid_json"),
    "a trailing comma": (b"[1,]", "invalid_json"),
    "single quotes": (b"{'a':1}", "invalid_json"),
    "a comment": (b"[1/*x*/]", "invalid_json"),
    "NaN": (b"[NaN]", "invalid_json"),
    "Infinity": (b"[-Infinity]", "invalid_json"),
    "a number beyond all bounds": (b"[1e999]", "invalid_json"),
    "invalid UTF-8": (b'["\xff"]', "invalid_json"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "invalid_json"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "invalid_json"),
    "a lone surrogate": (rb'["\ud800"]', "invalid_json"),
    "a raw NUL": (b'["\0"]', "invalid_json"),
    "a raw line feed in a string": (b'["\n"]', "invalid_json"),
    "an unknown escape": (rb'["\x41"]', "invalid_json"),
    "an escaped NUL": (rb'["\u0000"]', "json_nul_character"),
    "an escaped NUL in a key": (rb'{"a\u0000b":1}', "json_nul_character"),
    "an escaped NUL behind an escaped backslash": (rb'["\\\u0000"]', "json_nul_character"),
    "a key twice": (b'{"a":1,"a":2}', "json_duplicate_key"),
    "a key twice, spelled differently": (rb'{"a":1,"\u0061":2}', "json_duplicate_key"),
    "a key twice deep inside": (b'[{"x":[{"b":1,"c":2,"b":3}]}]', "json_duplicate_key"),
    "an integer of 20 digits": (b"[12345678901234567890]", "json_number_out_of_range"),
    "2^63": (b"9223372036854775808", "json_number_out_of_range"),
    "a large negative integer": (b'{"a":-92233720368547758080}', "json_number_out_of_range"),
    "an integer of 300 digits": (b"[" + b"9" * 300 + b"]", "json_number_out_of_range"),
    "an integer of 100,000 digits": (b"[" + b"9" * 100_000 + b"]", "invalid_json"),
    "65 levels": (b"[" * 65 + b"]" * 65, "json_too_deep"),
    "65 levels of objects": (b'{"a":' * 65 + b"1" + b"}" * 65, "json_too_deep"),
    "10,000 levels": (b"[" * 10_000 + b"]" * 10_000, "json_too_deep"),
    "brackets that only open": (b"[" * 5000, "json_too_deep"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_json_is_refused_by_name(name: str) -> None:
    raw, code = BAD[name]
    with pytest.raises(InvalidInput) as refusal:
        decode_json(raw)
    assert (refusal.value.code, refusal.value.status) == (code, 400)


def test_syntax_errors_say_where() -> None:
    with pytest.raises(InvalidInput, match=r"\(line 2, column 6\)") as refusal:
        decode_json(b'{\n "a" 1}')
    assert refusal.value.details == {"line": 2, "column": 6}


def test_64_levels_are_read_and_the_limit_can_be_lower() -> None:
    decode_json(b"[" * 64 + b"]" * 64)
    decode_json(b"[" + b"[]," * 1000 + b"[]]", max_depth=2)
    with pytest.raises(InvalidInput):
        decode_json(b"[[[]]]", max_depth=2)


def test_brackets_and_colons_in_strings_do_not_count() -> None:
    text = "[{:," * 1000 + '\\"'
    assert decode_json(json.dumps({"a": text, text: [text]}).encode(), max_depth=2) == {"a": text, text: [text]}


HEAVY: dict[str, bytes] = {
    "10 MB of numbers": b"[" + b"1," * (5 * MEGABYTE - 1) + b"1]",
    "10 MB of empty objects": b"[" + b"{}," * (3 * MEGABYTE) + b"{}]",
    "10 MB of strings": b"[" + b'"a",' * (2 * MEGABYTE) + b'"a"]',
    "10 MB of quotes": b'"' * 10 * MEGABYTE,
    "10 MB of brackets": b"[" * 10 * MEGABYTE,
    "10 MB of keys": b"{" + b'"a":1,' * (MEGABYTE * 10 // 6) + b'"b":1}',
}


@pytest.mark.parametrize("name", HEAVY)
def test_what_is_made_of_too_many_pieces_is_refused_before_it_is_parsed(name: str) -> None:
    with pytest.raises(TooLarge) as refusal:
        decode_json(HEAVY[name])
    assert refusal.value.code == "json_too_many_values"


SLOW: dict[str, bytes] = {
    **HEAVY,
    "10 MB in one string": b'{"image":"' + b"A" * 10 * MEGABYTE + b'"}',
    "10 MB of escaped quotes": b'["' + b'\\"' * 5 * MEGABYTE + b'"]',
    "10 MB of backslashes": b'["' + b"\\" * 10 * MEGABYTE + b'"]',
    "10 MB of spaces": b" " * 10 * MEGABYTE + b"1",
    "10 MB of digits": b"1." + b"1" * 10 * MEGABYTE,
    "as many numbers as are read": b"[" + b",".join([b"1"] * (MAX_VALUES - 1)) + b"]",
    "100,000 keys": orjson.dumps({f"key{n}": n for n in range(100_000)}),
    "100,000 objects": b"[" + b",".join([b'{"a":1}'] * 100_000) + b"]",
}


@pytest.mark.parametrize("name", SLOW)
def test_a_hostile_body_costs_little_more_than_python_needs_to_copy_and_parse_it(name: str) -> None:
    raw = SLOW[name]
    yardstick_s = cpu_s(lambda: _copied_and_parsed(raw))
    cost_s = cpu_s(lambda: _outcome(raw))
    assert cost_s < 0.2 + 8 * yardstick_s, f"{cost_s * 1000:.0f} ms, yardstick {yardstick_s * 1000:.0f} ms"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
numbers = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


@given(json_values, st.booleans())
def test_every_value_survives(value: object, ascii_only: bool) -> None:
    assert decode_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200) | st.text('{}[]":,\\u0123 \x00e-+.tfn', max_size=200).map(str.encode))
def test_any_bytes_are_a_value_or_a_refusal(raw: bytes) -> None:
    _outcome(raw)


@given(st.lists(st.sampled_from(["a", "b", "c", "\\u0061"]), min_size=1, max_size=6))
def test_duplicate_keys_are_found_wherever_they_stand(keys: list[str]) -> None:
    raw = ('[{"x":{' + ",".join(f'"{key}":[{{"k":1}}]' for key in keys) + "}}]").encode()
    is_duplicated = len({key.replace("\\u0061", "a") for key in keys}) < len(keys)
    assert (_outcome(raw) == "json_duplicate_key") == is_duplicated


def _outcome(raw: bytes) -> str:
    try:
        decode_json(raw)
    except CallerError as refusal:
        return refusal.code
    return "read"


def _copied_and_parsed(raw: bytes) -> None:
    for _ in range(3):
        raw.translate(None, b"\1")
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(raw)
