"""What the native provider writes on the wire."""

import pytest

from llm_gateway.providers.native import _lines


def test_headers_are_a_line_each() -> None:
    assert _lines({"accept": "*/*", "x-id": "ü"}) == b"accept: */*\r\nx-id: \xfc\r\n"


@pytest.mark.parametrize("value", ["a\r\nx-more: b", "a\nb", "a\rb", "a\0b"])
def test_no_header_holds_another(value: str) -> None:
    with pytest.raises(ValueError, match="end of a line"):
        _lines({"anthropic-beta": value})
