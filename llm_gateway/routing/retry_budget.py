"""How many calls may be asked twice of the same deployment: few, as retries multiply the load on what is ailing."""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.1
BURST: Final = 10.0


class RetryBudget:
    """At most a tenth of this process's calls are repeated, and ten more at once after a quiet time."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = BURST

    def called(self) -> None:
        """Another call is being made, which earns a tenth of a repetition."""
        self._left = min(self._left + SHARE, BURST)

    def take(self) -> bool:
        """True, and one repetition less is left; or there is none."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
