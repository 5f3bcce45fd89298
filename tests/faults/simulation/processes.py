"""Several gateway processes at one ledger: what they ask for their calls, what they forget, and who interferes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal
from uuid import UUID

from llm_gateway.limits.ledger import HoldRequest
from llm_gateway.limits.rules import Answer
from llm_gateway.limits.standing import subjects_of
from tests.faults.simulation.asked import Asked, Hold, Reap, Renew, Reprice, Settle, Together, Void
from tests.faults.simulation.world import World

MOST_OPEN: Final = 40


@dataclass
class Call:
    """What a process knows of a call; the ledger may know better."""

    request: HoldRequest
    attempt: UUID
    phase: Literal["asking", "running"] = "asking"
    end: Settle | Void | None = None  # decided, and not known to have arrived


@dataclass
class Process:
    """One gateway. When it dies it forgets its calls."""

    calls: list[Call] = field(default_factory=list)


class Processes:
    """Each step one of them does one thing, or something happens to them."""

    def __init__(self, world: World, number: int = 4) -> None:
        self.world = world
        self.draw = world.draw
        self._all = [Process() for _ in range(number)]
        self._made: deque[Call] = deque(maxlen=300)
        self._actions = {
            "begin": self._begin,
            "go on": self._go_on,
            "together": self._together,
            "interfere": self._interfere,
            "arrive late": self._arrive_late,
            "reap": self._reap,
            "wait": self._wait,
            "edit": self.world.edit,
            "die": self._die,
        }
        self._weights = {
            "begin": 26,
            "go on": 34,
            "together": 5,
            "interfere": 3,
            "arrive late": 3,
            "reap": 2,
            "wait": 14,
            "edit": 2,
            "die": 1,
        }

    async def step(self) -> None:
        """Something happened, and every promise holds."""
        await self._actions[self.draw.any_of(self._weights)]()

    async def _begin(self) -> None:
        """A call comes in."""
        if len(self.world.checks.open) >= MOST_OPEN:
            await self._reap()
            return
        process, call = self.draw.rng.choice(self._all), Call(self.draw.request(), self.draw.uuid())
        self._made.append(call)
        process.calls.append(call)
        await self._ask(process, call)

    async def _go_on(self) -> None:
        """A process does the next thing about one of its calls."""
        process = self.draw.rng.choice(self._all)
        if not process.calls:
            await self._begin()
            return
        call = self.draw.rng.choice(process.calls)
        if call.end is not None:
            await self._end(process, call, call.end)
        elif call.phase == "running":
            await self._run(process, call)
        elif self.draw.happens(0.6):
            await self._ask(process, call)
        else:
            await self._end(process, call, Void(call.request.request_id, call.attempt))

    async def _ask(self, process: Process, call: Call) -> None:
        answer = await self.world.send(Hold(call.request, call.attempt))
        if isinstance(answer, Answer) and answer.verdict == "held":
            call.phase = "running"
        elif answer is not None:
            process.calls.remove(call)

    async def _run(self, process: Process, call: Call) -> None:
        name = call.request.request_id
        what = self.draw.any_of({"renew": 15, "reprice": 20, "void": 10, "settle": 55})
        if what == "renew":
            if await self.world.send(Renew(name, self.draw.lease_s())) is False:
                process.calls.remove(call)
        elif what == "reprice":
            await self.world.send(Reprice(name, self.draw.amount(list(subjects_of(call.request)))))
        elif what == "void":
            await self._end(process, call, Void(name))
        else:
            await self._end(process, call, Settle(name, self.draw.usage(self.world.checks.open.get(name))))

    async def _end(self, process: Process, call: Call, end: Settle | Void) -> None:
        """Asked again and again, the same, until there is an answer: whatever it is, the call is over."""
        call.end = end
        if await self.world.send(end) is not None:
            process.calls.remove(call)

    async def _together(self) -> None:
        """One process ends and begins several calls at once."""
        process, most = self.draw.rng.choice(self._all), self.draw.rng.choice([2, 3, 8])
        ending = [call for call in process.calls if call.phase == "running" and call.end is None][:most]
        for call in ending:
            name = call.request.request_id
            settle = Settle(name, self.draw.usage(self.world.checks.open.get(name)))
            call.end = settle if self.draw.happens(0.8) else Void(name)
        beginning = [Call(self.draw.request(), self.draw.uuid()) for _ in range(self.draw.rng.randrange(most))]
        if beginning and self._made and self.draw.happens(0.1):  # one of them with an id that is taken
            beginning[-1].request = self.draw.request(self.draw.rng.choice(self._made).request.request_id)
        ends, holds = [call.end for call in ending if call.end], [Hold(one.request, one.attempt) for one in beginning]
        if len(self.world.checks.open) >= MOST_OPEN or not (ends or holds):
            return
        self._made.extend(beginning)
        process.calls.extend(beginning)
        answers = await self.world.send(Together(tuple(ends), tuple(holds)))
        if not isinstance(answers, list):
            return
        for call, answer in zip([*ending, *beginning], answers, strict=True):
            if isinstance(answer, Answer) and answer.verdict == "held":
                call.phase = "running"
            else:
                process.calls.remove(call)

    async def _interfere(self) -> None:
        """Somebody asks about a call that is another's, is long over, or never was."""
        if not self._made:
            return
        known = self.draw.rng.choice(self._made)
        name = known.request.request_id if self.draw.happens(0.95) else f"nobody_{self.draw.uuid()}"
        attempt = self.draw.uuid()
        asked: dict[str, Asked] = {
            "another call": Hold(self.draw.request(name), attempt),
            "the same call": Hold(known.request, known.attempt),
            "settle": Settle(name, self.draw.usage(self.world.checks.open.get(name))),
            "void": Void(name),
            "void another's": Void(name, attempt),
            "renew": Renew(name, self.draw.lease_s()),
            "reprice": Reprice(name, self.draw.amount(list(subjects_of(known.request)))),
        }
        await self.world.send(self.draw.rng.choice(list(asked.values())))

    async def _arrive_late(self) -> None:
        """A statement that was given up long ago reaches the ledger after all."""
        if self.world.late:
            late = self.world.late
            await self.world.perform(late.pop(self.draw.rng.randrange(len(late))))

    async def _reap(self) -> None:
        lost = await self.world.send(Reap()) is None
        self.world.reaps_failed = self.world.reaps_failed + 1 if lost else 0

    async def _wait(self) -> None:
        if self.draw.happens(0.02):
            self.world.freeze()
        elif self.world.store.now_us >= self.world.next_reap_us():
            await self._reap()
        else:
            self.world.wait()

    async def _die(self) -> None:
        """A process is killed with everything it knew; another takes its place."""
        self.draw.rng.choice(self._all).calls.clear()
        self.world.note("a process dies")
