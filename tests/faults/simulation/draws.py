"""What calls and limits look like: mostly ordinary, often on the very edge of what fits."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from llm_gateway.accounting import TokenCounts
from llm_gateway.limits.ledger import HoldRequest, LimitName, Usage
from llm_gateway.limits.meters import Amount, SubjectLimits
from llm_gateway.limits.standing import Subject
from tests.faults.simulation.model import Model
from tests.support.ledger_stores import HoldRow

USUAL_LIMITS: Final[dict[LimitName, tuple[int, ...]]] = {
    "requests_per_minute": (10, 60, 999, 1_000_000),
    "tokens_per_minute": (997, 9000, 200_000, 10**9),
    "calls_in_flight": (3, 10, 100),
    "tokens_per_day": (20_000, 100_000, 10**7, 10**12),
    "nano_usd_per_day": (30_000, 10**6, 10**9),
    "nano_usd_per_month": (100_000, 10**7, 10**15),
}
MOST_TOKENS: Final = 10**9
MOST_NANO_USD: Final = 10**15


class Draws:
    """Everything random of one run."""

    def __init__(self, seed: int, model: Model) -> None:
        self.rng = random.Random(seed)
        self._model = model
        self.users: list[Subject] = []
        self.keys: list[Subject] = []
        self.workspaces: list[Subject] = []

    @property
    def subjects(self) -> list[Subject]:
        return [*self.users, *self.keys, *self.workspaces]

    def happens(self, chance: float) -> bool:
        return self.rng.random() < chance

    def uuid(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128))

    def request(self, request_id: str | None = None) -> HoldRequest:
        user = self.rng.choice(self.users)
        key, workspace = self.rng.choice([None, *self.keys]), self.rng.choice([None, *self.workspaces])
        amount = self.amount([one for one in (user, key, workspace) if one is not None])
        return HoldRequest(
            request_id or f"req_{self.rng.getrandbits(64):016x}",
            user[1],
            "test/model",
            amount.tokens,
            amount.cost_nano_usd,
            self.lease_s(),
            None if key is None else key[1],
            None if workspace is None else workspace[1],
        )

    def amount(self, subjects: list[Subject]) -> Amount:
        return Amount(
            min(MOST_TOKENS, self._units(subjects, self.rng.choice(("tokens_per_minute", "tokens_per_day")))),
            min(MOST_NANO_USD, self._units(subjects, self.rng.choice(("nano_usd_per_day", "nano_usd_per_month")))),
        )

    def _units(self, subjects: list[Subject], name: LimitName) -> int:
        kind = self.rng.randrange(30)
        state = self._model.state(self.rng.choice(subjects), name) if kind < 5 else None
        if state is None:
            return self.rng.choice([0, 1, 7, 333, 333, self.rng.randrange(1500)])
        return [state.limit // 3, state.remaining, state.remaining + 1, state.limit, state.limit + 1][kind]

    def usage(self, hold: HoldRow | None) -> Usage:
        """Mostly less than is held, sometimes all of it, sometimes more: debt."""
        most = hold.amount if hold else Amount(100, 100)
        kind = self.rng.random()
        if kind < 0.2:
            used = most
        elif kind < 0.3:
            used = Amount(
                min(MOST_TOKENS, most.tokens + self.rng.randrange(3000)),
                min(MOST_NANO_USD, most.cost_nano_usd + self.rng.randrange(1000)),
            )
        else:
            used = Amount(self.rng.randint(0, most.tokens), self.rng.randint(0, most.cost_nano_usd))
        prompt = self.rng.randint(0, used.tokens)
        return Usage(counts=TokenCounts(input=prompt, output=used.tokens - prompt), cost_nano_usd=used.cost_nano_usd)

    def limits(self, unlimited: float) -> SubjectLimits:
        return SubjectLimits(
            **{name: None if self.happens(unlimited) else self._limit(usual) for name, usual in USUAL_LIMITS.items()}
        )

    def _limit(self, usual: tuple[int, ...]) -> int:
        """Rarely nothing at all, or next to nothing."""
        return self.rng.choice((0, 1, 7)) if self.happens(0.02) else self.rng.choice(usual)

    def lease_s(self) -> float:
        return self.rng.choice([1.0, 5.0, 60.0, 120.0, 120.0, 3600.0])

    def any_of(self, weights: Mapping[str, int]) -> str:
        return self.rng.choices(list(weights), list(weights.values()))[0]
