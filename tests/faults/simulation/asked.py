"""What a process asks of the ledger, put to a store and to the model alike."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from llm_gateway.limits.ledger import HoldRequest, Usage
from llm_gateway.limits.meters import Amount
from llm_gateway.limits.rules import Answer
from tests.faults.simulation.model import Model
from tests.support.ledger_stores import Store


@dataclass(frozen=True)
class Hold:
    """May this call be made?"""

    request: HoldRequest
    attempt: UUID

    @property
    def request_ids(self) -> tuple[str, ...]:
        return (self.request.request_id,)

    async def ask(self, store: Store) -> Answer:
        return await store.hold(self.request, self.attempt)

    def expect(self, model: Model) -> Answer:
        return model.hold(self.request, self.attempt)


@dataclass(frozen=True)
class Reprice:
    """May it cost this much?"""

    request_id: str
    amount: Amount

    @property
    def request_ids(self) -> tuple[str, ...]:
        return (self.request_id,)

    async def ask(self, store: Store) -> Answer:
        return await store.reprice(self.request_id, self.amount)

    def expect(self, model: Model) -> Answer:
        return model.reprice(self.request_id, self.amount)


@dataclass(frozen=True)
class Settle:
    """It did cost this much."""

    request_id: str
    usage: Usage

    @property
    def request_ids(self) -> tuple[str, ...]:
        return (self.request_id,)

    async def ask(self, store: Store) -> str:
        return await store.settle(self.request_id, self.usage)

    def expect(self, model: Model) -> str:
        used = Amount(self.usage.counts.total, self.usage.cost_nano_usd)
        return model.finish(self.request_id, "settled", used)


@dataclass(frozen=True)
class Void:
    """It did not happen; or it may not have, if `attempt` says whose hold is meant."""

    request_id: str
    attempt: UUID | None = None

    @property
    def request_ids(self) -> tuple[str, ...]:
        return (self.request_id,)

    async def ask(self, store: Store) -> str:
        return await store.void(self.request_id, self.attempt)

    def expect(self, model: Model) -> str:
        return model.finish(self.request_id, "voided", Amount(), self.attempt)


@dataclass(frozen=True)
class Renew:
    """It takes longer."""

    request_id: str
    lease_s: float

    @property
    def request_ids(self) -> tuple[str, ...]:
        return (self.request_id,)

    async def ask(self, store: Store) -> bool:
        return await store.renew(self.request_id, self.lease_s)

    def expect(self, model: Model) -> bool:
        return model.renew(self.request_id, self.lease_s)


@dataclass(frozen=True)
class Reap:
    """Whose lease has run out?"""

    request_ids: tuple[str, ...] = ()

    async def ask(self, store: Store) -> int:
        return await store.reap()

    def expect(self, model: Model) -> int:
        return model.reap()


@dataclass(frozen=True)
class Together:
    """What several calls ask in one transaction: first what has ended, then what begins, in this order."""

    ends: tuple[Settle | Void, ...]
    holds: tuple[Hold, ...]

    @property
    def request_ids(self) -> tuple[str, ...]:
        return tuple(request_id for one in (*self.ends, *self.holds) for request_id in one.request_ids)

    async def ask(self, store: Store) -> list[Answer | str]:
        ends = [
            (one.request_id, None, one.usage) if isinstance(one, Settle) else (one.request_id, one.attempt, None)
            for one in self.ends
        ]
        return await store.post(ends, [(one.request, one.attempt) for one in self.holds])

    def expect(self, model: Model) -> list[Answer | str]:
        return [*(one.expect(model) for one in self.ends), *(one.expect(model) for one in self.holds)]


Asked = Hold | Reprice | Settle | Void | Renew | Reap | Together
Answered = Answer | str | bool | int | list[Answer | str]
