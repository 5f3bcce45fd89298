"""API keys: what one looks like, how it is made, and what is kept of it.

`bt_live_` + 27 characters of base62 (160 random bits) + 6 characters of checksum. Kept is the HMAC-SHA256 of the whole,
so that a stolen table opens nothing. The checksum is keyed as well: whoever does not have the pepper cannot make up a
key that would cost a question to the database (docs/decisions/0101).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
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
    """Makes keys with one pepper, and recognises those that were made with it or with another that is accepted.

    The keyed checksum says which pepper a key was made with, so a second one costs no question to the database
    (docs/decisions/0142).
    """

    def __init__(self, pepper: str, accepted: Iterable[str] = ()) -> None:
        self._own = _Pepper(pepper)
        self._peppers = (self._own, *(_Pepper(other) for other in accepted))

    @classmethod
    def from_settings(cls, settings: Settings) -> KeyRing:
        """The ring of this installation."""
        accepted = [pepper.get_secret_value() for pepper in settings.key_peppers_accepted]
        return cls(settings.key_pepper.get_secret_value(), accepted)

    def make(self) -> NewKey:
        """A key that nobody else has."""
        random = _base62(secrets.randbits(RANDOM_BITS), _RANDOM_CHARS)
        secret = f"{PREFIX}{random}{self._own.checksum(random)}"
        return NewKey(secret, self._own.digest(secret), f"{PREFIX}…{secret[-_HINT_CHARS:]}")

    def recognise(self, credential: str) -> bytes | None:
        """The digest of a key that was made with one of the peppers; None for anything else, without asking anybody."""
        shape = _SHAPE.fullmatch(credential)
        if shape is None:
            return None
        for pepper in self._peppers:
            if hmac.compare_digest(shape[2], pepper.checksum(shape[1])):
                return pepper.digest(credential)
        return None


class _Pepper:
    """One secret, two uses: each has a key of its own."""

    __slots__ = ("_checksum_key", "_digest_key")

    def __init__(self, pepper: str) -> None:
        self._digest_key = hmac.digest(pepper.encode(), b"buttress api key: digest", sha256)
        self._checksum_key = hmac.digest(pepper.encode(), b"buttress api key: checksum", sha256)

    def digest(self, secret: str) -> bytes:
        """What is kept of a key."""
        return hmac.digest(self._digest_key, secret.encode(), sha256)

    def checksum(self, random: str) -> str:
        """The end of a key that begins so."""
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
