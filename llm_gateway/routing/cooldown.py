"""Deployments that just failed rest for a while, so that calls do not queue up behind what is down."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from llm_gateway.providers.contract import FailureKind, ProviderFailure

FAILURES_IN_A_ROW: Final = 3
REST_S: Final = 15.0
# A provider may ask for an hour; after this long we look for ourselves.
LONGEST_REST_S: Final = 60.0

# What says nothing about the deployment: the request was wrong.
_NOT_ITS_FAULT: Final = frozenset({FailureKind.REJECTED, FailureKind.UNTRANSLATABLE})


class Cooldowns:
    """Which deployments rest, in this process. Times are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._rests_until: dict[str, float] = {}

    def rests(self, deployment_id: str) -> bool:
        """True while the deployment should be left alone, if there is another."""
        return self._rests_until.get(deployment_id, 0.0) > self._clock()

    def succeeded(self, deployment_id: str) -> None:
        """The deployment is trusted again."""
        self._failures.pop(deployment_id, None)
        self._rests_until.pop(deployment_id, None)

    def failed(self, deployment_id: str, failure: ProviderFailure) -> None:
        """The failure counts: a 429 rests as long as it asks, the third failure in a row fifteen seconds."""
        if failure.kind in _NOT_ITS_FAULT:
            return
        failures = self._failures.get(deployment_id, 0) + 1
        self._failures[deployment_id] = failures
        rest_s = REST_S if failures >= FAILURES_IN_A_ROW else 0.0
        if failure.kind is FailureKind.RATE_LIMITED and failure.retry_after_s is not None:
            rest_s = max(rest_s, failure.retry_after_s)
        if rest_s:
            self._rests_until[deployment_id] = self._clock() + min(rest_s, LONGEST_REST_S)
