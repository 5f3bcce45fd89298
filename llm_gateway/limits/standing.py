"""Limits as they stand against one call: each meter of whom it is charged to, and which limit is in its way. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, get_args
from uuid import UUID

from llm_gateway.limits.ledger import HoldRequest, LimitName, LimitState, Scope
from llm_gateway.limits.meters import Meter, SubjectLimits
from llm_gateway.limits.rules import Answer

Subject = tuple[Scope, UUID]
FOR_EVER_MS: Final = 9_000_000_000_000
_LIMIT_NAMES: Final[tuple[LimitName, ...]] = get_args(LimitName)


def subjects_of(request: HoldRequest) -> tuple[Subject, ...]:
    """Who is charged, in the order of Scope."""
    named: tuple[tuple[Scope, UUID | None], ...] = (
        ("user", request.user_id),
        ("key", request.key_id),
        ("workspace", request.workspace_id),
    )
    return tuple((scope, subject_id) for scope, subject_id in named if subject_id is not None)


@dataclass(frozen=True, slots=True)
class Standing:
    """The meters, caught up to the moment, beside what limits them; in the order of Scope."""

    now_us: int
    meters: Mapping[Subject, Meter]
    limits: Mapping[Subject, SubjectLimits]

    def refusal(self, waits_ms: Callable[[Meter, SubjectLimits], Mapping[LimitName, int | None]]) -> Answer | None:
        """The limit that stands in the way longest, the first among equals; None when none does."""
        longest_ms, found = 0, None
        for subject, meter in self.meters.items():
            waits = waits_ms(meter, self.limits[subject])
            for name in _LIMIT_NAMES:
                wait_ms = waits.get(name, 0)
                wait_ms = FOR_EVER_MS if wait_ms is None else wait_ms
                if wait_ms > longest_ms:
                    longest_ms, found = wait_ms, (subject, name)
        if found is None:
            return None
        subject, name = found
        return Answer(
            verdict="too_large" if longest_ms == FOR_EVER_MS else "refused",
            scope=subject[0],
            limit_name=name,
            retry_after_ms=longest_ms,
            state=self._state(subject, name),
        )

    def completed(self, answer: Answer) -> Answer:
        """With the tightest limits per minute: the least remaining, the first in the order of Scope among equals."""
        return replace(
            answer, requests=self._tightest("requests_per_minute"), tokens=self._tightest("tokens_per_minute")
        )

    def _tightest(self, name: LimitName) -> LimitState | None:
        states = [state for subject in self.meters if (state := self._state(subject, name)) is not None]
        return min(states, key=lambda state: state.remaining, default=None)

    def _state(self, subject: Subject, name: LimitName) -> LimitState | None:
        return self.meters[subject].state(self.now_us, self.limits[subject], name)
