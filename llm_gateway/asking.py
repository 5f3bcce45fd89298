"""Asking providers: one after another, while nothing was answered and the last one did no work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from llm_gateway.call import Call
from llm_gateway.client import Client
from llm_gateway.limits.ledger import CallTooLarge, LimitExceeded
from llm_gateway.metrics import Metrics
from llm_gateway.plan import Hop
from llm_gateway.providers.contract import FailureKind, ProviderAnswer, ProviderCall, ProviderFailure, Providers
from llm_gateway.routing.attempts import attempts, pause_before_next_s
from llm_gateway.routing.cooldown import Cooldowns
from llm_gateway.routing.retry_budget import RetryBudget

MAX_WHOLE_BYTES: Final = 64 * 1024 * 1024  # two thousand embeddings of three thousand numbers, in base64


@dataclass(slots=True, kw_only=True)
class Asking:
    """Whom calls are put to, and what this process has learnt of them."""

    providers: Providers
    metrics: Metrics
    cooldowns: Cooldowns = field(default_factory=Cooldowns)
    retries: RetryBudget = field(default_factory=RetryBudget)

    async def ask(self, call: Call, client: Client, deadline_s: float) -> None:
        """Some deployment has begun to answer, and is heard to the end where the answer is not streamed.

        Raises: the last ProviderFailure when none did; LimitExceeded, CallTooLarge when the last one left is too dear.
        """
        self.retries.called()
        order = attempts(call.plan.hops)
        too_dear: LimitExceeded | CallTooLarge | None = None
        for position, hop in enumerate(order):
            if position + 1 < len(order) and self.cooldowns.rests(hop.deployment.id):
                continue  # since the plan was made
            try:
                if call.needs_more(hop):
                    hold = await call.hold_more(hop)
                    client.limits = call.format.dialect.limit_headers(hold.requests, hold.tokens)
                self.cooldowns.asking(hop.deployment.id)
                call.asking(hop)
                await self._ask_one(call, hop, deadline_s)
            except (LimitExceeded, CallTooLarge) as refusal:
                too_dear = refusal
            except ProviderFailure as failure:
                await self._after_failure(call, failure, order[position:], deadline_s)
            else:
                self.cooldowns.succeeded(hop.deployment.id)
                return
        if too_dear is not None:
            raise too_dear

    async def ready(self, call: Call) -> None:
        """Whatever the first deployment's provider needs once is there, so that no deadline of the call pays for it."""
        await self.providers.of(call.plan.hops[0].deployment, call.format.endpoint).ready()

    def count_failure(self, hop: Hop | None, failure: ProviderFailure) -> None:
        """The figures know of it; without a deployment there is nothing to count."""
        if hop is not None:
            self.metrics.provider_failed(hop.deployment.id, failure.kind.value)

    async def _after_failure(
        self, call: Call, failure: ProviderFailure, order: Sequence[Hop], deadline_s: float
    ) -> None:
        """The next of `order`, whose first one failed, may be asked. Raises: the failure, where nobody may."""
        hop = order[0]
        if failure.work_was_refused:
            call.refused()
        self.cooldowns.failed(hop.deployment.id, failure)
        pause_s = pause_before_next_s(failure, order)
        if pause_s is None or asyncio.get_running_loop().time() + pause_s >= deadline_s:
            raise failure
        if order[1].deployment is hop.deployment and not self.retries.take():
            raise failure
        self.count_failure(hop, failure)
        self._count_next(call.plan.hops[0], order[1])
        await asyncio.sleep(pause_s)

    def _count_next(self, first: Hop, hop: Hop) -> None:
        self.metrics.tried_again(hop.model.name, fallback=hop.model is not first.model)

    async def _ask_one(self, call: Call, hop: Hop, deadline_s: float) -> None:
        request, endpoint = call.request, call.format.endpoint
        provider = self.providers.of(hop.deployment, endpoint)
        await provider.ready()  # of a fallback; the first one's was awaited before any deadline began
        clock = asyncio.get_running_loop().time
        asked_s = clock()
        until_s = min(deadline_s, asked_s + hop.deployment.timeouts.first_byte_s) if request.stream else deadline_s
        try:
            async with asyncio.timeout_at(until_s):
                call.answer = await provider.open(
                    ProviderCall(
                        deployment=hop.deployment,
                        endpoint=endpoint,
                        body=call.format.upstream_body(request, hop.deployment, hop.estimate),
                        stream=request.stream,
                        call_id=call.charge.request_id,
                        headers=request.headers,
                    )
                )
                if not request.stream:
                    call.whole = await _read_whole(call.answer)
        except TimeoutError as error:
            raise ProviderFailure(FailureKind.TIMED_OUT) from error
        finally:
            call.provider_s += clock() - asked_s


async def _read_whole(answer: ProviderAnswer) -> bytes:
    received = bytearray()
    while piece := await answer.read():
        received += piece
        if len(received) > MAX_WHOLE_BYTES:
            raise ProviderFailure(FailureKind.UNUSABLE)
    return bytes(received)
