"""What may not be written down is taken out: secrets by their value, by the name they go under, and by their shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import orjson

REDACTED: Final = "[redacted]"
MAX_TEXT_CHARS: Final = 16_384

# A value under a name that ends like this is a secret, whatever it looks like; compared without case, "-" and "_".
_SECRET_NAMES: Final = (
    "token",
    "password",
    "passwd",
    "secret",
    "authorization",
    "apikey",
    "secretkey",
    "privatekey",
    "jwt",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "dsn",
    "databaseurl",
)
# The same names inside a text, whoever wrote it: `password=…`, JSON (escaped or not), a Python dictionary or list of
# headers; and the password of a URL.
_NAMED_IN_TEXT: Final = re.compile(
    r"""(?ix)
    ( (?:token|passw(?:or)?d|secret|api[_-]?key|secret[_-]?key|authorization|cookies?|jwt)
      (?: \\*["']? \s* [:=] | \\*["'] \s* , ) \s* )
    (?: \\*"[^"]*" | b?'[^']*' | [\[{][^\]}]*[\]}] | (?: (?:bearer|basic) \s+ )? [^\s"'\\,;&}\]\)]+ )
    | (?<=://) [^\s/@:"']* : [^\s@/"']+ (?=@)
    """
)
# Shapes of well-known secrets, looked for in the finished line: JWTs, Supabase, Buttress, LLM providers.
_SHAPES: Final = re.compile(
    rb"""(?x)
    eyJ [A-Za-z0-9_-]{6,} (?: \. [A-Za-z0-9_-]* ){0,4}
    | sb_secret_ [A-Za-z0-9_-]+ | sbp_ [A-Za-z0-9_]{8,}
    | bt_ (?:live|test) _ [A-Za-z0-9_-]+
    | embedded_ [0-9a-f]{16,}
    | (?<![A-Za-z0-9]) sk- [A-Za-z0-9_-]{6,}
    | (?<![A-Za-z0-9]) (?:gsk_|xai-|hf_|whsec_|AIza) [A-Za-z0-9_/+=-]{12,}
    | (?i:\b (?:bearer|basic) [ ]+ [A-Za-z0-9._~+/=-]{12,})
    """
)
# What a line without any of those shapes has none of; one search instead of thirteen.
_SHAPE_HINTS: Final = re.compile(rb"eyJ|sbp?_|bt_|embedded_|sk-|gsk_|xai-|hf_|whsec_|AIza|earer |asic ")

_protected: set[bytes] = set()


def protect(*secrets: str | None) -> None:
    """From here on these exact values are redacted wherever they stand; values under 8 characters are too common."""
    _protected.update(orjson.dumps(secret)[1:-1] for secret in secrets if secret and len(secret) >= 8)


def redact_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """The same fields without the values that their names, or names within their texts, say are secret; nested too."""
    redacted: dict[str, object] = {}
    for name, value in fields.items():
        # spelled out, for every line of the log comes through here: most values are numbers and short plain texts
        kind = type(value)
        if kind is str:
            redacted[str(name)] = REDACTED if _is_secret_name(str(name)) else redact_text(str(value))
        elif kind is int or kind is float or kind is bool or value is None:
            redacted[str(name)] = value  # counts like `max_token` are no secrets
        else:
            redacted[str(name)] = _redact_named(str(name), value)
    return redacted


def redact_line(line: bytes) -> bytes:
    """The finished line without protected values and without what has the shape of a secret."""
    for secret in _protected:
        if secret in line:
            line = line.replace(secret, REDACTED.encode())
    if _SHAPE_HINTS.search(line):
        line = _SHAPES.sub(REDACTED.encode(), line)
    return line


def redact_text(text: str) -> str:
    """The text without the values of secrets that it names, cut at 16,384 characters."""
    if len(text) > MAX_TEXT_CHARS:
        text = f"{text[:MAX_TEXT_CHARS]}… ({len(text) - MAX_TEXT_CHARS} more characters)"
    if ":" in text or "=" in text:
        text = _NAMED_IN_TEXT.sub(lambda match: f"{match[1] or ''}{REDACTED}", text)
    return text


def _redact_named(name: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value  # counts like `max_token` are no secrets
    return REDACTED if _is_secret_name(name) else _redact(value)


def _redact(value: object) -> object:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes | bytearray):
        return redact_text(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, Mapping):
        return redact_fields(value)
    if isinstance(value, list | tuple | set | frozenset):
        return _redact_items(list(value))
    return value


def _redact_items(items: list[object]) -> list[object]:
    # Header lists hold pairs: [("authorization", "Bearer …"), …], names as text or bytes.
    return [
        [item[0], _redact_named(_name_of(item[0]), item[1])]
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str | bytes)
        else _redact(item)
        for item in items
    ]


def _name_of(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    return name.lower().replace("-", "").replace("_", "").endswith(_SECRET_NAMES)
