"""Text as it may enter: bounded, stripped where a person typed it, free of what Postgres or a log would choke on."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

# Cc: NUL, CR, LF, escape. Cs: half a surrogate pair, not encodable. Zl, Zp: line breaks by another name.
# Bidirectional overrides (in Cf) would let a name rewrite the text around it.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# bcrypt, which Supabase Auth uses, ignores everything past 72 bytes; refusing is honest.
_MAX_PASSWORD_BYTES = 72
# Shape only: whether the address exists is found out by mailing to it, and Supabase Auth has the last word.
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+")


def _single_line(value: str) -> str:
    if any(unicodedata.category(char) in _REFUSED_CATEGORIES or char in _BIDI_CONTROLS for char in value):
        raise ValueError("must be one line of text without control characters")
    return value


def _email_shape(value: str) -> str:
    if _EMAIL.fullmatch(_single_line(value)) is None:
        raise ValueError("must be an e-mail address")
    return value.lower()


def _possible_password(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise ValueError("must not contain control characters")
    if not 1 <= len(text.encode()) <= _MAX_PASSWORD_BYTES:
        raise ValueError(f"must be 1 to {_MAX_PASSWORD_BYTES} bytes long")
    return value


Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), AfterValidator(_single_line)
]
"""A title a person typed: 1 to 100 characters, one line."""

Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254), AfterValidator(_email_shape)]
"""An e-mail address in lower case, which is how Supabase Auth keeps it."""

Password = Annotated[SecretStr, AfterValidator(_possible_password)]
"""Exactly what was typed, never stripped, never printed."""

Token = Annotated[SecretStr, Field(min_length=1, max_length=4096)]
"""An opaque token of Supabase Auth."""
