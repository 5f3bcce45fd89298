"""The promise every ledger keeps, and the words it is spoken in.

    hold ──► held ──► settled   the call was made; it costs what it used
                 ├──► voided    the provider did no work; it costs nothing
                 └──► expired   nobody came back within the lease; it costs what was held

A hold charges every limit of the caller or none, before a byte goes to a provider. What happens to it later happens
once: the first of settle, void and reap wins, the others change nothing.

Money is integer nano-dollars (1e-9 USD), time in seconds. The ledger's own clock decides; no caller passes a time in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import UUID

from core.errors import Conflict, InvalidInput, NotAuthenticated, TooManyRequests

LimitName = Literal["requests_per_minute", "tokens_per_minute", "calls_in_flight", "nano_usd_per_month"]
Outcome = Literal["ok", "client_gone", "cut", "provider_error", "unknown"]


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """The most that one call can use.

    `request_id` must be made by the gateway for each call (never taken from a client): settle and void act on it.
    `tokens` is prompt plus output, `cost_nano_usd` their price; both are upper bounds (estimate.py, accounting.py).
    `lease_s` is how long the hold lives without a renewal: 1 second to 1 hour.
    """

    request_id: str
    user_id: UUID
    workspace_id: UUID | None
    model: str
    tokens: int
    cost_nano_usd: int
    lease_s: float = 120.0


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit as it stands after the hold, or after the refusal that charged nothing.

    `remaining` is never negative. `reset_s` is how long until all of `limit` is there again, if nothing more is used:
    the rates refill steadily, money returns at the first of the month (UTC), calls in flight end when they end (0.0).
    """

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of one caller at one moment."""

    requests: LimitState
    tokens: LimitState
    in_flight: LimitState
    month_nano_usd: LimitState


@dataclass(frozen=True, slots=True)
class Hold:
    """The call may be made: every limit has been charged for it."""

    request_id: str
    limits: Limits

    @property
    def requests(self) -> LimitState:
        """Requests per minute."""
        return self.limits.requests

    @property
    def tokens(self) -> LimitState:
        """Tokens per minute."""
        return self.limits.tokens

    @property
    def in_flight(self) -> LimitState:
        """Calls in flight."""
        return self.limits.in_flight

    @property
    def month_nano_usd(self) -> LimitState:
        """Nano-dollars per calendar month (UTC)."""
        return self.limits.month_nano_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a call used, as far as is known.

    Token classes are disjoint and add up to what the provider counted: `input_tokens` leaves out `cached_input_tokens`
    (OpenAI's `prompt_tokens` contains its `cached_tokens`: subtract them).
    `estimated` says that somebody else than the provider counted.
    """

    input_tokens: int
    cached_input_tokens: int = 0
    output_tokens: int
    cost_nano_usd: int
    estimated: bool = False
    outcome: Outcome = "ok"
    deployment: str | None = field(default=None)

    @property
    def tokens(self) -> int:
        """What counts against tokens per minute."""
        return self.input_tokens + self.cached_input_tokens + self.output_tokens


class LimitExceeded(TooManyRequests):
    """The call does not fit now and will fit after `retry_after_s`.

    Exact for the rates; the start of next month when the money is spent; a second when only calls in flight (or the
    money held for them) are in the way, as nobody knows when they end. Of several limits in the way, `limit_name` is
    the one that takes longest.
    """

    default_code = "rate_limit_exceeded"

    def __init__(self, message: str, *, limit_name: LimitName, retry_after_s: float, states: Limits) -> None:
        code = "budget_exceeded" if limit_name == "nano_usd_per_month" else "rate_limit_exceeded"
        super().__init__(message, code=code, details={"limit": limit_name}, retry_after_s=retry_after_s)
        self.limit_name: LimitName = limit_name
        self.states = states


class CallTooLarge(InvalidInput):
    """The call is larger than the whole of a limit: it would never fit, so there is nothing to wait for."""

    default_code = "call_exceeds_limit"

    def __init__(self, message: str, *, limit_name: LimitName, states: Limits) -> None:
        super().__init__(message, details={"limit": limit_name})
        self.limit_name: LimitName = limit_name
        self.states = states


class DuplicateCall(Conflict):
    """Another call was made with this request id; this one must not be made."""

    default_code = "duplicate_request_id"
    default_message = "A call with this request id has already been made. Send the request again without naming an id."


class UnknownCaller(NotAuthenticated):
    """The access token outlived its user."""

    default_code = "user_not_found"
    default_message = "The user of this access token does not exist any more."


class Ledger(Protocol):
    """Holds before, settles after. Every method may raise `core.errors.Unavailable`, within about a second."""

    async def hold(self, request: HoldRequest) -> Hold:
        """Every limit of the user is charged for the call, or none is.

        Raises: LimitExceeded, CallTooLarge, DuplicateCall, UnknownCaller; Unavailable, and then nothing stays charged.
        """
        ...

    async def settle(self, request_id: str, usage: Usage) -> None:
        """The call has cost `usage`, exactly once; less than held has been given back, more has become debt.

        Idempotent: call it again after Unavailable. Where the hold was finished already, nothing changes.
        """
        ...

    async def void(self, request_id: str) -> None:
        """The call has cost nothing, but counts as one request. Idempotent like settle."""
        ...

    async def renew(self, request_id: str, lease_s: float) -> bool:
        """The hold lives at least `lease_s` longer (True), or is there no longer (False): then stop the call."""
        ...

    async def reap(self) -> int:
        """Up to a hundred holds whose lease has run out have been settled at what they held; returns how many.

        Call it every few seconds from every process: they share the work.
        """
        ...

    async def aclose(self) -> None:
        """What the ledger still had to put right in the background has been put right, or given up to the lease."""
        ...
