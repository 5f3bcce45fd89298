"""A guard against floods in one process: few attempts at once, then one at a time, then a pause."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from core.errors import TooManyRequests

_MAX_KEYS: Final = 20_000  # about 3 MB; whoever has been quiet longest is forgotten first


class FloodGuard:
    """Admits `burst` attempts a key at once and one more every `refill_s` seconds (GCRA: one timestamp a key).

    It forgets at a restart and counts for one process only: a flood guard, not a limit. Nobody is locked out for
    good: the wait never exceeds `refill_s`.
    """

    def __init__(
        self, *, burst: int, refill_s: float, max_keys: int = _MAX_KEYS, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._refill_s = refill_s
        self._tolerance_s = (burst - 1) * refill_s
        self._max_keys = max_keys
        self._clock_s = clock_s
        self._full_again_at_s: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_again_at_s)

    def admit(self, key: str) -> None:
        """One attempt has been charged to the key. Raises: TooManyRequests with the exact time to wait."""
        now_s = self._clock_s()
        digest = _digest(key)
        full_again_at_s = max(self._full_again_at_s.get(digest, now_s), now_s)
        wait_s = full_again_at_s - now_s - self._tolerance_s
        if wait_s > 0:
            raise TooManyRequests("Too many attempts. Wait a little, then try again.", retry_after_s=wait_s)
        self._full_again_at_s[digest] = full_again_at_s + self._refill_s
        self._full_again_at_s.move_to_end(digest)
        if len(self._full_again_at_s) > self._max_keys:
            self._full_again_at_s.popitem(last=False)

    def forgive(self, key: str) -> None:
        """The key's last attempt is not counted: it was the right person."""
        digest = _digest(key)
        full_again_at_s = self._full_again_at_s.get(digest)
        if full_again_at_s is not None:
            self._full_again_at_s[digest] = full_again_at_s - self._refill_s


def _digest(key: str) -> bytes:
    """A short fixed-size stand-in, so that memory is bounded and holds no addresses."""
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=12).digest()
