"""The promise every ledger keeps, and the words it is spoken in.

    hold ──► held ──► settled   the call was made; it costs what it used
                 ├──► voided    the provider did no work; it costs nothing
                 └──► expired   nobody came back within the lease; it costs what was held

A hold charges every limit of the caller or none, before a byte goes to a provider. What happens to it later happens
once: the first of settle, void and reap wins, the others change nothing.

Who is charged: the user, the API key and the workspace of the call (Scope), each with six limits (LimitName). A limit
of null is no limit, 0 forbids. A user's limits are their own (an override), else their plan's, else the default plan's;
those of a key or a workspace are its own, else its plan's, else there are none.
- Rates (requests and tokens per minute) are GCRA, decision 0061: the whole limit at once, then a steady refill. An edit
  of a limit keeps what was used of it. While there is no limit no rate is kept: a limit that comes later begins full.
- A day and a month (UTC, by the ledger's clock, which never goes back over midnight) are used by what was settled in
  them and by everything that is held now, whenever it was held. They are kept with or without a limit. A call of no
  tokens passes the limit of tokens, one that costs nothing those of money, also in debt; both count as requests.
- More than held at the settlement becomes debt: used > limit, which refuses the next call.

Money is integer nano-dollars (1e-9 USD), time in seconds. The ledger's own clock decides; no caller passes a time in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol
from uuid import UUID

from core.errors import Conflict, InternalFault, InvalidInput, NotAuthenticated, TooManyRequests
from llm_gateway.accounting import TokenCounts

Scope = Literal["user", "key", "workspace"]
LimitName = Literal[
    "requests_per_minute",
    "tokens_per_minute",
    "calls_in_flight",
    "tokens_per_day",
    "nano_usd_per_day",
    "nano_usd_per_month",
]
Outcome = Literal["ok", "cached", "client_gone", "cut", "provider_error", "unknown"]


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """The most that one call can use, and who it is charged to: the user, and the key and the workspace where given.

    `request_id` must be made by the gateway for each call (never taken from a client): settle and void act on it.
    `tokens` is prompt plus output, `cost_nano_usd` their price; both are upper bounds (estimate.py, accounting.py).
    `lease_s` is how long the hold lives without a renewal: 1 second to 1 hour.
    """

    request_id: str
    user_id: UUID
    model: str
    tokens: int
    cost_nano_usd: int
    lease_s: float = 120.0
    key_id: UUID | None = None
    workspace_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit as it stands after the hold, or after the refusal that charged nothing.

    `remaining` is never negative. `reset_s` is how long until all of `limit` is there again, if nothing more is used:
    the rates refill steadily, days and months begin anew (UTC), calls in flight end when they end (0.0).
    """

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """The call may be made: every limit has been charged for it.

    `requests` and `tokens` are the tightest limits per minute of all scopes (the least remaining); None: unlimited.
    """

    request_id: str
    requests: LimitState | None
    tokens: LimitState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a call used, as far as is known. `estimated` says that somebody else than the provider counted.

    `deployment` and `endpoint` are what answered and what was asked, for the books.
    """

    counts: TokenCounts
    cost_nano_usd: int
    estimated: bool = False
    outcome: Outcome = "ok"
    deployment: str | None = None
    endpoint: str | None = None


BUDGETS: Final = frozenset({"tokens_per_day", "nano_usd_per_day", "nano_usd_per_month"})


class LimitExceeded(TooManyRequests):
    """The call does not fit now and will fit after `retry_after_s`.

    Exact for the rates; the start of the next day or month (UTC) when tokens or money are used up; a second when only
    calls in flight (or what is held for them) are in the way, as nobody knows when they end. Of several limits in the
    way, `scope` and `limit_name` say which takes longest, the first in the order of Scope and LimitName among equals.
    `state` is how that one stands, `requests` and `tokens` are as in Hold.
    """

    default_code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        scope: Scope,
        limit_name: LimitName,
        retry_after_s: float,
        state: LimitState,
        requests: LimitState | None = None,
        tokens: LimitState | None = None,
    ) -> None:
        code = "budget_exceeded" if limit_name in BUDGETS else "rate_limit_exceeded"
        super().__init__(message, code=code, details={"limit": limit_name, "scope": scope}, retry_after_s=retry_after_s)
        self.scope: Scope = scope
        self.limit_name: LimitName = limit_name
        self.state = state
        self.requests = requests
        self.tokens = tokens


class CallTooLarge(InvalidInput):
    """The call is larger than the whole of a limit: it would never fit, so there is nothing to wait for."""

    default_code = "call_exceeds_limit"

    def __init__(
        self,
        message: str,
        *,
        scope: Scope,
        limit_name: LimitName,
        state: LimitState,
        requests: LimitState | None = None,
        tokens: LimitState | None = None,
    ) -> None:
        super().__init__(message, details={"limit": limit_name, "scope": scope})
        self.scope: Scope = scope
        self.limit_name: LimitName = limit_name
        self.state = state
        self.requests = requests
        self.tokens = tokens


class HoldLost(InternalFault):
    """The call has no hold any more (its lease ran out, or it was finished), so nothing can be changed about it."""

    default_code = "hold_lost"
    default_message = "The record of this call was lost while it ran, so it was stopped."


class NotEnforced(InternalFault):
    """A call that a limit forbids was let through, or refused for another reason: no call should be made here."""

    default_code = "limits_not_enforced"
    default_message = "Limits and budgets are not enforced, so no call should be made. Only the operator can help."


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
        """Every limit of the user, the key and the workspace is charged for the call, or none is.

        What this process asked to settle or void before it asked for the hold is counted as settled or voided.
        Raises: LimitExceeded, CallTooLarge, DuplicateCall, UnknownCaller; Unavailable, and then nothing stays charged.
        """
        ...

    async def reprice(self, request_id: str, tokens: int, cost_nano_usd: int) -> Hold:
        """The call holds this much from now on, in all limits: before it goes to a deployment that may cost more.

        Less than before is given back, and is never refused. The lease stays as it is.
        Raises: LimitExceeded, CallTooLarge, and then the hold is as it was; HoldLost.
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

    async def upkeep(self) -> None:
        """The books have room for the next days, finished days are added up, what is older than is kept is gone.

        So is the meter of a user, key or workspace that does not exist any more, a month or two after its last call.

        Call it at the start and every hour from every process: one at a time does the work, the others return at once.
        """
        ...

    async def rehearse(self) -> bool:
        """Calls that a limit forbids, one for each limit, were seen refused; nothing is left of them.

        False while there is nobody who could call, so that nothing can be seen. Raises: NotEnforced.
        """
        ...

    async def aclose(self) -> None:
        """What the ledger still had to put right in the background has been put right, or given up to the lease."""
        ...
