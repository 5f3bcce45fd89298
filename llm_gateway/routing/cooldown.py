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


# How long one call may try a deployment whose rest is over, before another one may: if its client left, it never tells.
TRIAL_S: Final = 10.0

# Whose `Retry-After` says how long to leave it alone.
_ASKS_FOR_TIME: Final = frozenset({FailureKind.RATE_LIMITED, FailureKind.OVERLOADED})


class Cooldowns:
    """Which deployments rest, in this process. Times are monotonic seconds.

    After its rest a deployment is on trial: one call asks it, the others leave it alone until that has an answer.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._rests_until: dict[str, float] = {}  # there until it succeeds, so also while it is on trial
        self._trial_until: dict[str, float] = {}

    def rests(self, deployment_id: str) -> bool:
        """True while the deployment should be left alone, if there is another."""
        until = self._rests_until.get(deployment_id)
        if until is None:
            return False
        return max(until, self._trial_until.get(deployment_id, until)) > self._clock()

    def asking(self, deployment_id: str) -> None:
        """A call is about to ask the deployment; where its rest has just ended, this is its trial."""
        if deployment_id in self._rests_until:
            self._trial_until[deployment_id] = self._clock() + TRIAL_S

    def succeeded(self, deployment_id: str) -> None:
        """The deployment is trusted again."""
        self._failures.pop(deployment_id, None)
        self._rests_until.pop(deployment_id, None)
        self._trial_until.pop(deployment_id, None)

    def failed(self, deployment_id: str, failure: ProviderFailure) -> None:
        """The failure counts: the third in a row, or one on trial, means a rest of 15 s, or as long as it asks."""
        on_trial = self._trial_until.pop(deployment_id, None) is not None
        if failure.kind in _NOT_ITS_FAULT:
            return
        failures = self._failures.get(deployment_id, 0) + 1
        self._failures[deployment_id] = failures
        rest_s = REST_S if failures >= FAILURES_IN_A_ROW or on_trial else 0.0
        if failure.kind in _ASKS_FOR_TIME and failure.retry_after_s is not None:
            rest_s = max(rest_s, failure.retry_after_s)
        if rest_s:
            self._rests_until[deployment_id] = self._clock() + min(rest_s, LONGEST_REST_S)
