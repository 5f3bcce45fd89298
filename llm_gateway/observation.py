"""What is told of a call once it is over: figures and names of ours, never a word of its content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from llm_gateway.accounting import TokenCounts


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """One finished call.

    Units: seconds; `ended_at_ns` is nanoseconds since 1970. `first_output_s`: from the request's arrival to the first
    byte of a streamed answer, None where none was sent. `overhead_s`: the time that was ours, None where no provider
    was asked. `error_code` is ours, from core.errors or the wire; names are those of the catalogue.
    """

    call_id: str
    endpoint: str
    model: str
    stream: bool
    status: int
    error_code: str | None
    outcome: str
    counts: TokenCounts
    cost_nano_usd: int
    duration_s: float
    ended_at_ns: int
    overhead_s: float | None = None
    first_output_s: float | None = None
    deployment: str | None = None
    provider: str | None = None
    provider_model: str | None = None
    traceparent: str | None = None  # the client's own trace, as it sent it


class Observer(Protocol):
    """Somebody who is told of every finished call; it must return at once and never fail."""

    def finished(self, record: CallRecord) -> None:
        """The call is over, and its client has been answered."""
        ...
