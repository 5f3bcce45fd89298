"""API keys: what one looks like, how it is made, and what is kept of it.

`bt_live_` + 27 characters of base62 (160 random bits) + 6 characters of checksum. Kept is the HMAC-SHA256 of the whole,
so that a stolen table opens nothing. The checksum is keyed as well: whoever does not have the pepper cannot make up a
key that would cost a question to the database (docs/decisions/0101).
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.settings import Settings

PREFIX: Final = "bt_live_"
RANDOM_BITS: Final = 160
_RANDOM_CHARS: Final = 27  # 62**27 > 2**160
_CHECKSUM_CHARS: Final = 6
_HINT_CHARS: Final = 4
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE: Final = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_RANDOM_CHARS}}})([0-9A-Za-z]{{{_CHECKSUM_CHARS}}})")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `secret` is for its owner and nobody else; `digest` and `hint` are what is kept."""

    secret: str = field(repr=False)
    digest: bytes = field(repr=False)
    hint: str


class KeyRing:
    """Makes keys and recognises them, with one pepper. Another pepper knows none of them."""

    def __init__(self, pepper: str) -> None:
        # One secret, two uses: each has a key of its own.
        self._digest_key = hmac.digest(pepper.encode(), b"buttress api key: digest", sha256)
        self._checksum_key = hmac.digest(pepper.encode(), b"buttress api key: checksum", sha256)

    @classmethod
    def from_settings(cls, settings: Settings) -> KeyRing:
        """The ring of this installation."""
        return cls(settings.key_pepper.get_secret_value())

    def make(self) -> NewKey:
        """A key that nobody else has."""
        random = _base62(secrets.randbits(RANDOM_BITS), _RANDOM_CHARS)
        secret = f"{PREFIX}{random}{self._checksum(random)}"
        return NewKey(secret, self._digest(secret), f"{PREFIX}…{secret[-_HINT_CHARS:]}")

    def recognise(self, credential: str) -> bytes | None:
        """The digest of a key that was made with this pepper; None for anything else, without asking anybody."""
        shape = _SHAPE.fullmatch(credential)
        if shape is None or not hmac.compare_digest(shape[2], self._checksum(shape[1])):
            return None
        return self._digest(credential)

    def _digest(self, secret: str) -> bytes:
        return hmac.digest(self._digest_key, secret.encode(), sha256)

    def _checksum(self, random: str) -> str:
        tag = hmac.digest(self._checksum_key, random.encode(), sha256)
        return _base62(int.from_bytes(tag), _CHECKSUM_CHARS)


def is_key(credential: str) -> bool:
    """Whether the credential wants to be an API key, true or not; access tokens begin otherwise."""
    return credential.startswith("bt_")


def _base62(number: int, chars: int) -> str:
    """The number's last `chars` digits, the first one first."""
    digits = []
    for _ in range(chars):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
