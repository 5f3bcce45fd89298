"""How long calls are held for and how long a stop may take: seconds, from the environment, read once at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LEASE_VARIABLE: Final = "BUTTRESS_GATEWAY_LEASE_S"
GRACE_VARIABLE: Final = "BUTTRESS_GATEWAY_GRACE_S"
LAME_DUCK_VARIABLE: Final = "BUTTRESS_GATEWAY_LAME_DUCK_S"

SETTLE_AT_EXIT_S: Final = 8.0
# After the grace period: a client's time to accept its error event, then the time to settle.
_FAREWELL_AND_SETTLE_S: Final = SETTLE_AT_EXIT_S + 1.0
_MOST_S: Final = 3600.0


class TimesInvalid(ValueError):
    """A time in the environment is no number, or cannot be kept; the text names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """In seconds.

    `lease`: how long a hold outlives the process that made it; running calls renew theirs every quarter of it.
    `lame_duck`: after SIGTERM everything is served this long while readiness says no, so that whoever spreads the load
    has looked elsewhere before anything is refused.
    `grace`: then nothing new is taken, and running calls have this long before an error ends them.
    """

    lease: float = 120.0
    lame_duck: float = 0.0
    grace: float = 20.0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Times:
        """Raises: TimesInvalid."""
        return cls(
            lease=_seconds(environ, LEASE_VARIABLE, cls().lease, least=2.0),
            lame_duck=_seconds(environ, LAME_DUCK_VARIABLE, cls().lame_duck),
            grace=_seconds(environ, GRACE_VARIABLE, cls().grace),
        )

    @property
    def renew_every(self) -> float:
        """A lease survives three renewals that fail."""
        return self.lease / 4

    @property
    def reap_every(self) -> float:
        """How often calls are looked for whose lease has run out."""
        return min(5.0, self.renew_every)

    def require_stop_within(self, kill_after_s: float) -> None:
        """A stop is over before the server kills what still runs. Raises: TimesInvalid."""
        needed_s = self.lame_duck + self.grace + _FAREWELL_AND_SETTLE_S
        if needed_s >= kill_after_s:
            raise TimesInvalid(
                f"{LAME_DUCK_VARIABLE} ({self.lame_duck:g}) and {GRACE_VARIABLE} ({self.grace:g}) are too long: with "
                f"{_FAREWELL_AND_SETTLE_S:g} s to settle, a stop would take {needed_s:g} s, and the server kills after "
                f"{kill_after_s:g} s. Together they must be below {kill_after_s - _FAREWELL_AND_SETTLE_S:g}."
            )


def _seconds(environ: Mapping[str, str], name: str, default: float, *, least: float = 0.0) -> float:
    raw = environ.get(name, "").strip()
    if not raw:
        return default
    try:
        seconds = float(raw)
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= _MOST_S:
        raise TimesInvalid(f"{name} must be a number of seconds from {least:g} to {_MOST_S:g}; it is {raw!r}.")
    return seconds
