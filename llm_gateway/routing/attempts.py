"""How often to ask, and after what pause. Bounded, and only while no provider can have done any work."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from llm_gateway.providers.contract import FailureKind, ProviderFailure

if TYPE_CHECKING:
    from llm_gateway.plan import Hop

MAX_ATTEMPTS: Final = 3
# A provider that asks for a longer pause is not waited for; the client is told how long it takes.
LONGEST_PAUSE_S: Final = 2.0
_SHORTEST_PAUSE_S: Final = 0.05
_JITTER_S: Final = 0.1

# Asking the same deployment again cannot help.
_SAME_AGAIN: Final = frozenset({FailureKind.CREDENTIAL, FailureKind.MODEL_MISSING})


def attempts(hops: Sequence[Hop]) -> list[Hop]:
    """Whom to ask, in order: each deployment once, the only one twice."""
    return list(hops[:MAX_ATTEMPTS]) if len(hops) > 1 else [hops[0], hops[0]]


def pause_before_next_s(failure: ProviderFailure, order: Sequence[Hop]) -> float | None:
    """Seconds to wait before the next attempt, None to give up; `order` begins with the one that failed."""
    if not failure.may_ask_another or len(order) < 2:
        return None
    if order[1].deployment is not order[0].deployment:
        return 0.0
    if failure.kind in _SAME_AGAIN:
        return None
    pause_s = max(failure.retry_after_s or 0.0, _SHORTEST_PAUSE_S) + random.random() * _JITTER_S  # noqa: S311 -- jitter
    return pause_s if pause_s <= LONGEST_PAUSE_S + _JITTER_S else None
