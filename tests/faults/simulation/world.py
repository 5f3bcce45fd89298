"""One ledger, the model of it and the clock: what is asked is asked of both, and then everything is looked at."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final
from uuid import UUID

from llm_gateway.limits.rules import Answer
from llm_gateway.limits.standing import Subject
from tests.faults.simulation.asked import Answered, Asked
from tests.faults.simulation.checks import Checks, Violation, require
from tests.faults.simulation.draws import Draws
from tests.faults.simulation.model import DAY_US, Model
from tests.support.ledger_stores import Lost, Snapshot, Store, figures

REAP_EVERY_US: Final = 5_000_000
PLANS: Final = ("pro", "team")


class World:
    """Nothing here is random but what `draw` draws. `last` says what happened last.

    Without `oracle` the ledger may differ from the model, but not break a promise (checks.py).
    """

    def __init__(self, store: Store, seed: int, *, oracle: bool = True) -> None:
        self.store = store
        self._oracle = oracle
        self.model = Model()
        self.model.now_us = store.now_us
        self.checks = Checks(self.model.limits_of)
        self.draw = Draws(seed, self.model)
        self.late: list[Asked] = []
        self.reaps_failed = 0
        self._log: deque[tuple[int, str, object]] = deque(maxlen=10)
        self.counts: Counter[str] = Counter()

    async def begin(self, *, users: int = 4, keys: int = 3, workspaces: int = 2) -> None:
        """Everybody has limits."""
        self.draw.users = [("user", await self._new_user()) for _ in range(users)]
        self.draw.keys = [("key", self.draw.uuid()) for _ in range(keys)]
        self.draw.workspaces = [("workspace", self.draw.uuid()) for _ in range(workspaces)]
        for name in PLANS:
            await self._edit_plan(name)
        await self._edit_default_plan()
        for subject in self.draw.subjects:
            await self._edit_limits(subject)

    async def _new_user(self) -> UUID:
        user_id = self.draw.uuid()
        await self.store.add_user(user_id)
        return user_id

    async def send(self, asked: Asked) -> Answered | None:
        """What whoever asks learns; None: nothing, and it may have happened or not, or may happen yet."""
        fate = self.draw.any_of({"arrives": 86, "answer lost": 6, "lost": 4, "late": 2, "cut": 2})
        if fate in {"arrives", "answer lost"}:
            answer = await self.perform(asked)
            return answer if fate == "arrives" else None
        self.note(fate, asked)
        if fate == "late":
            self.late.append(asked)
        elif fate == "cut":
            await self._cut(asked)
        return None

    async def perform(self, asked: Asked) -> Answered:
        """The ledger and the model answer the same, and every promise holds."""
        self.note("asked", asked)
        answer, expected = await asked.ask(self.store), asked.expect(self.model)
        require(
            answer == expected or not self._oracle, "the ledger answers what the model does", asked, answer, expected
        )
        for one in answer if isinstance(answer, list) else [answer]:
            self.counts[f"{type(asked).__name__.lower()}: {one.verdict if isinstance(one, Answer) else one}"] += 1
        await self._look(asked, refused=isinstance(answer, Answer) and answer.verdict != "held")
        return answer

    async def _cut(self, asked: Asked) -> None:
        """The connection ends before the ledger has committed: nothing has happened."""
        self.store.cut = True
        try:
            await asked.ask(self.store)
            raise Violation("what was cut off has no answer")
        except Lost:
            self.counts["cut off"] += 1
        finally:
            self.store.cut = False
        await self._look(asked, refused=True)

    async def _look(self, asked: Asked, *, refused: bool) -> None:
        snapshot = await self.store.snapshot(self.draw.subjects)
        gone = {name for name in self.checks.open if name not in snapshot.holds}
        usage = await self.store.usage(gone.union(asked.request_ids))
        changed = self.checks.after_step(self.store.now_us, snapshot, usage, refused=refused)
        if self._oracle:
            self._compare(snapshot, changed)

    def _compare(self, snapshot: Snapshot, changed: set[Subject]) -> None:
        calls = self.model.open_calls()
        require(snapshot.holds.keys() == calls.keys(), "the holds are the model's", snapshot.holds, calls)
        for name, call in calls.items():
            hold = snapshot.holds[name]
            same = (hold.amount, hold.lease_expires_us) == (call.amount, call.lease_expires_us)
            require(same, "the hold is the model's", hold, call)
        for subject in self.model.touched | changed:
            expected, meter = self.model.subjects[subject].row(), snapshot.meters.get(subject)
            if expected is not None:
                same = meter is not None and figures(meter) == figures(expected)
                require(same, "the meter is the model's", subject, meter, expected)
        self.model.touched.clear()

    def next_reap_us(self) -> int:
        """When some process will have reaped what has run out by then."""
        first_us = min((hold.lease_expires_us for hold in self.checks.open.values()), default=2**62)
        return max(first_us, self.checks.frozen_until_us) + (1 + self.reaps_failed) * REAP_EVERY_US

    def wait(self) -> None:
        """Time has passed, but not past the next reap."""
        us = self.draw.rng.choice([0, 1, 999, 1000, 100_000, 1_000_000, 3_000_000, 61_000_000, 600_000_000])
        if self.draw.happens(0.1):  # to the last microsecond of the day, or the first of the next
            us = DAY_US - self.store.now_us % DAY_US - self.draw.rng.choice([0, 1])
        self._pass(min(us, max(0, self.next_reap_us() - self.store.now_us)))

    def freeze(self) -> None:
        """Nobody has done anything for hours or days: the leases of all calls that ran have run out."""
        self._pass(self.draw.rng.choice([3_600_000_000, DAY_US // 3, DAY_US, 9 * DAY_US]))
        self.checks.frozen_until_us = self.store.now_us

    def _pass(self, us: int) -> None:
        self.store.now_us += us
        self.model.now_us = self.store.now_us
        self.note("microseconds pass", us)

    async def edit(self) -> None:
        """Somebody has changed what is allowed."""
        kind = self.draw.any_of({"plan": 15, "default plan": 15, "limits": 70})
        if kind == "plan":
            await self._edit_plan(self.draw.rng.choice(PLANS))
        elif kind == "default plan":
            await self._edit_default_plan()
        else:
            await self._edit_limits(self.draw.rng.choice(self.draw.subjects))

    async def _edit_plan(self, name: str) -> None:
        limits = self.draw.limits(unlimited=0.3)
        self.model.set_plan(name, limits)
        await self.store.set_plan(name, limits)
        self._edited(f"plan {name}", limits)

    async def _edit_default_plan(self) -> None:
        limits = self.draw.limits(unlimited=0.1)
        self.model.set_default_plan(limits)
        await self.store.set_default_plan(limits)
        self._edited("default plan", limits)

    async def _edit_limits(self, subject: Subject) -> None:
        limits, plan = self.draw.limits(unlimited=0.7), self.draw.rng.choice([None, None, *PLANS])
        self.model.set_limits(subject, limits, plan)
        await self.store.set_limits(subject, limits, plan)
        self._edited("own limits", (subject, limits, plan))

    def _edited(self, what: str, limits: object) -> None:
        self.checks.after_edit(self.draw.subjects)
        self.counts["edit"] += 1
        self.note(what, limits)

    def note(self, what: str, detail: object = "") -> None:
        self._log.append((self.store.now_us, what, detail))

    def last(self) -> str:
        """What happened last, a line each: the time (microseconds since 1970), what, and to whom."""
        return "\n".join(f"{now_us}: {what} {detail}" for now_us, what, detail in self._log)
