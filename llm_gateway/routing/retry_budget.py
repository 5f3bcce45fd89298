"""How often calls may ask the same deployment again: seldom, as repetitions multiply the load on what is ailing."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

SHARE: Final = 0.1
# A process with few calls has this many a second for them, or a lone failure could not be made good.
A_SECOND: Final = 1.0
BURST: Final = 50.0


class RetryBudget:
    """At most a tenth of this process's calls are repeated, or one a second; fifty at once after a quiet time."""

    __slots__ = ("_as_of_s", "_clock", "_left")

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._as_of_s = clock()
        self._left = BURST

    def called(self) -> None:
        """Another call is being made, which earns a tenth of a repetition."""
        self._left = min(self._left + SHARE, BURST)

    def take(self) -> bool:
        """True, and one repetition less is left; or there is none."""
        now_s = self._clock()
        self._left = min(self._left + (now_s - self._as_of_s) * A_SECOND, BURST)
        self._as_of_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
