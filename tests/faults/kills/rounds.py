"""A round: calls are brought to their points, the kill happens, all is put right, the bill is noted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import httpx

from tests.faults.kills.books import Billed
from tests.faults.kills.plan import AT_THE_DATABASE, CallPlan, Kill, Round
from tests.faults.kills.world import World
from tests.support.fake_provider import Match, Step
from tests.support.fake_provider.client import NotReached

_REACH_S = 15.0
_END_S = 60.0
_PATHS = {"chat": "/chat/completions", "messages": "/messages"}
_MODELS = {"chat": "fake/chat", "messages": "fake/claude"}

Task = asyncio.Task[str]


async def play(world: World, one: Round, billed: Billed) -> None:
    """The round is over, both gateways are ready and nothing is kept back."""
    await _Playing(world, one, billed).play()


class _Playing:
    def __init__(self, world: World, one: Round, billed: Billed) -> None:
        self._world, self._round, self._billed = world, one, billed
        self._victim = world.gateways[one.victim]
        self._tasks: dict[Task, CallPlan] = {}

    async def play(self) -> None:
        self._world.provider.reset()
        reached = await self._reach()
        self._billed.reached += reached
        self._billed.in_flight += sum(not task.done() for task in self._tasks)
        await self._kill()
        await self._let_all_end()
        await self._stand_up()
        for task in self._tasks:
            self._billed.answers[task.result() if not task.cancelled() else "left"] += 1
        counts = self._world.provider.bill().counts
        await self._world.provider.wait_for(closed=counts.requests)
        self._billed.add(self._world)

    # -- to the point

    async def _reach(self) -> bool:
        """Whether every call is where the plan wants it."""
        point, gate = self._round.point, self._victim.gate
        if point not in ("before the hold", "hold sent"):
            self._start(self._round.focus)  # first, so that they are the first to be released
            reached = await self._all_wait()
        self._start(self._round.beside)
        reached = await self._all_wait()
        if point not in AT_THE_DATABASE:
            return reached
        gate.keep("statements" if point.startswith("before") else "answers")
        if point in ("before the hold", "hold sent"):
            self._start(self._round.focus)
        else:
            self._world.provider.release(len(self._round.focus))
        with suppress(TimeoutError):
            async with asyncio.timeout(_REACH_S):
                await gate.kept.wait()
        return reached and gate.kept.is_set()

    async def _all_wait(self) -> bool:
        """The provider holds every call that has begun; False where some ended before, or did not come in time."""
        deadline_s = asyncio.get_running_loop().time() + _REACH_S
        while asyncio.get_running_loop().time() < deadline_s:
            expected = sum(not task.done() for task in self._tasks)
            with suppress(NotReached):
                await self._world.provider.wait_for(held=expected, timeout_s=0.5)
                return expected == len(self._tasks)
        return False

    def _start(self, calls: Sequence[CallPlan]) -> None:
        first = len(self._tasks)
        names = [f"round-{self._round.number}-{first + position}" for position in range(len(calls))]
        self._world.provider.script(*(_step(call, name) for call, name in zip(calls, names, strict=True)))
        for call, name in zip(calls, names, strict=True):
            self._tasks[asyncio.create_task(self._call(call, name))] = call

    async def _call(self, call: CallPlan, name: str) -> str:
        """How it ended for its client."""
        server, person = self._world.gateways[call.gateway].running, self._world.people[call.person]
        credential = person.key if call.by_key else person.token
        try:
            async with self._world.http.stream(
                "POST",
                server.base_url + _PATHS[call.endpoint],
                headers={"authorization": f"Bearer {credential}"},
                json=_body(call, name),
            ) as response:
                text = (await response.aread()).decode()
        except httpx.TransportError:
            return "broken off"
        if response.status_code != 200:
            return str(response.status_code)
        return "error event" if call.stream and '"error"' in text else "whole"

    # -- the kill

    async def _kill(self) -> None:
        how: dict[Kill, Callable[[], Awaitable[None]]] = {
            "gateway killed": self._kill_gateway,
            "gateway told to stop": self._stop_gateway,
            "clients gone": self._send_clients_away,
            "backends terminated": self._world.terminate_backends,
            "database cut off": self._cut_database_off,
            "database silent": self._silence_database,
            "postgres killed": self._kill_postgres,
        }
        await how[self._round.kill]()
        for gateway in self._world.gateways:
            gateway.gate.pass_on()

    async def _kill_gateway(self) -> None:
        self._victim.kill()
        await self._victim.gone()
        if not self._round.late:
            self._victim.gate.cut()

    async def _stop_gateway(self) -> None:
        """Where it is `late` the provider waits until the gateway has ended the calls itself."""
        self._victim.running.terminate()
        if not self._round.late:
            return
        self._victim.gate.pass_on()
        theirs = [task for task, call in self._tasks.items() if call.gateway == self._round.victim]
        await asyncio.wait(theirs or list(self._tasks), timeout=_REACH_S)

    async def _send_clients_away(self) -> None:
        for task, call in self._tasks.items():
            if call.leaves:
                task.cancel()

    async def _cut_database_off(self) -> None:
        for gateway in self._world.gateways:
            gateway.gate.shut()
        self._world.provider.release()
        await asyncio.sleep(self._round.away_s)
        for gateway in self._world.gateways:
            await gateway.gate.open()

    async def _silence_database(self) -> None:
        for gateway in self._world.gateways:
            gateway.gate.keep("everything")
        self._world.provider.release()
        await asyncio.sleep(self._round.away_s)

    async def _kill_postgres(self) -> None:
        self._world.provider.release()
        await self._world.kill_postgres()

    # -- afterwards

    async def _let_all_end(self) -> None:
        deadline_s = asyncio.get_running_loop().time() + _END_S
        pending: set[Task] = set(self._tasks)
        while pending:
            if asyncio.get_running_loop().time() > deadline_s:
                self._billed.faults.append(f"round {self._round.number}: {len(pending)} calls did not end")
                for task in pending:
                    task.cancel()
            self._world.provider.release()
            _, pending = await asyncio.wait(pending, timeout=0.1)

    async def _stand_up(self) -> None:
        if self._round.kill == "gateway killed":
            await self._world.replace(self._round.victim, status=-signal.SIGKILL)
        elif self._round.kill == "gateway told to stop":
            await self._world.replace(self._round.victim, status=0)
        for gateway in self._world.gateways:
            await self._world.ready(gateway)


def _step(call: CallPlan, name: str) -> Step:
    pause = call.pause_at
    return Step(
        match=Match(user=name),
        output_tokens=call.output_tokens,
        hold_before_headers=pause == -1,
        hold_after_chunks=pause if pause is not None and pause >= 0 else None,
    )


def _body(call: CallPlan, name: str) -> dict[str, object]:
    body: dict[str, object] = {
        "model": _MODELS[call.endpoint],
        "messages": [{"role": "user", "content": f"Go on, {name}."}],
        "max_tokens": 64,
        "stream": call.stream,
    }
    return body | ({"user": name} if call.endpoint == "chat" else {"metadata": {"user_id": name}})
