"""One call in flight: what is known of it, and how it is resolved, exactly once, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from enum import Enum
from functools import partial
from time import perf_counter, time_ns
from typing import Final

from core.errors import ButtressError, InternalFault
from core.logging import get_logger
from llm_gateway import usage
from llm_gateway.aftercount import COUNTED_AFTERWARDS
from llm_gateway.caller import Caller
from llm_gateway.content.rules import CallRules
from llm_gateway.keeping import Kept
from llm_gateway.limits.ledger import CallTooLarge, Hold, LimitExceeded, Outcome, Usage
from llm_gateway.observation import CallRecord
from llm_gateway.plan import Hop, Plan
from llm_gateway.providers.contract import FailureKind, ProviderAnswer, ProviderFailure
from llm_gateway.settlement import Charge
from llm_gateway.wire.errors import ShuttingDown
from llm_gateway.wire.format import Format, FormatRequest, StreamReader

log = get_logger(__name__)

# How long an answer waits for the ledger, which normally has written the usage before the client has the last byte.
# After that the client gets its answer, and the ledger its figures later.
_SETTLE_WAIT_S: Final = 1.0


class Interruption(Enum):
    """Why we end a call ourselves."""

    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"


def error_of_interruption(why: Interruption) -> ButtressError:
    """What the client is told about it."""
    if why is Interruption.SHUTDOWN:
        return ShuttingDown()
    return InternalFault("The record of this call was lost while it ran, so it was stopped.", code="hold_lost")


class Call:
    """A held call. All methods but `resolved` are synchronous: they work in a task that is being cancelled, too."""

    def __init__(
        self,
        *,
        caller: Caller,
        format_: Format,
        request: FormatRequest,
        plan: Plan,
        charge: Charge,
        rules: CallRules,
        kept: Kept,
        refusal: LimitExceeded | CallTooLarge | None = None,
        began_s: float,
        traceparent: str | None = None,
    ) -> None:
        self.caller = caller
        self.format = format_
        self.request = request
        self.plan = plan
        self.charge = charge
        self.rules = rules
        self.kept = kept
        self.refusal = refusal  # nothing is held, and nobody may be asked
        self.began_s = began_s  # of perf_counter
        self.traceparent = traceparent
        self.first_output_s: float | None = None  # since then
        self.provider_s = 0.0
        self.held_tokens, self.held_nano_usd = plan.tokens, plan.cost_nano_usd
        self.hop: Hop | None = None  # who was asked last
        self.asked = False  # it may be at work
        self.answer: ProviderAnswer | None = None
        self.whole = b""  # the answer's bytes, where it is not streamed
        self.stream: StreamReader | None = None
        self.usage: Usage | None = None
        self.counted: asyncio.Event | None = None  # its usage is being counted until this is set
        self.interruption: Interruption | None = None
        self.given = False  # the client has been handed all of a complete answer: it may leave now
        self.stream_error: ButtressError | None = None  # told within the stream, status 200 having been sent
        self._task = asyncio.current_task()
        self._over_s: float | None = None

    def cancel(self) -> None:
        """The work on the call ends now: its client has gone."""
        if self._task is not None:
            self._task.cancel()

    def interrupt(self, why: Interruption) -> None:
        """The work on the call ends now, for a reason of ours; its client is told."""
        if self.interruption is None:
            self.interruption = why
            self.cancel()

    def survive(self) -> None:
        """The cancellation that `interrupt` asked for is forgotten: there is still an answer to give."""
        if self._task is not None:
            self._task.uncancel()

    def settle(self, used: Usage) -> None:
        """The call cost this, unless it was resolved before."""
        if self.charge.resolution is None:
            self.usage = replace(used, endpoint=self.format.endpoint)
            self.charge.settle(self.usage)

    def settle_stream(self, outcome: Outcome) -> None:
        """The call cost what its stream shows, unless it was resolved before. What has to be guessed is counted."""
        if self.charge.resolution is not None:
            return
        hop, stream = self._hop_and_stream()
        if self.answer is not None and stream.fault is None:
            stream.feed(self.answer.unread())  # written, and billed to us, though nobody waited for it
        guess = self._streamed(outcome)
        counting = COUNTED_AFTERWARDS.counting(hop, self.request.body, stream) if guess.estimated else None
        if counting is None:
            self.settle(guess)
            return
        self.usage, self.counted = guess, asyncio.Event()
        self.charge.settle(guess, partial(self._count, counting, guess))

    def _streamed(self, outcome: Outcome, counted: usage.Counted | None = None) -> Usage:
        hop, stream = self._hop_and_stream()
        told = self.answer.reported() if self.answer is not None else None
        used = usage.streamed(hop, stream, outcome=outcome, told=told, counted=counted)
        return replace(used, endpoint=self.format.endpoint)

    async def _count(self, counting: Coroutine[None, None, usage.Counted], guess: Usage) -> Usage:
        """What was counted, or the guess where that failed."""
        try:
            self.usage = self._streamed(guess.outcome, await counting)
        except Exception:
            log.exception("count_failed", call_id=self.charge.request_id)
            return guess
        finally:
            if self.counted is not None:
                self.counted.set()
        return self.usage

    def _hop_and_stream(self) -> tuple[Hop, StreamReader]:
        if self.hop is None or self.stream is None:
            raise AssertionError("streamed without being asked to")
        return self.hop, self.stream

    def needs_more(self, hop: Hop) -> bool:
        """This deployment could use or charge more than is held."""
        return hop.estimate.tokens > self.held_tokens or hop.most_nano_usd > self.held_nano_usd

    async def hold_more(self, hop: Hop) -> Hold:
        """This deployment, too, is held for.

        Raises: LimitExceeded, CallTooLarge, and then what was held still is; HoldLost, Unavailable.
        """
        tokens = max(hop.estimate.tokens, self.held_tokens)
        cost_nano_usd = max(hop.most_nano_usd, self.held_nano_usd)
        hold = await self.charge.reprice(tokens, cost_nano_usd)
        self.held_tokens, self.held_nano_usd = tokens, cost_nano_usd
        return hold

    def asking(self, hop: Hop) -> None:
        """From here on the deployment may do work."""
        self.hop, self.asked = hop, True
        if self.request.stream:
            self.stream = self.format.stream_reader(self.request, held_tokens=hop.estimate.output_tokens)

    def refused(self) -> None:
        """The deployment did no work."""
        self.asked = False

    def fail(self, failure: ProviderFailure) -> None:
        """The call costs nothing when no provider did any work; else what came, or all that may have been done."""
        if self.hop is None or not self.asked:
            self.charge.void()
        elif self.stream is not None and self.answer is not None and failure.kind is not FailureKind.TIMED_OUT:
            self.settle_stream("cut")
        else:
            answered = failure.kind is FailureKind.UNUSABLE
            self.settle(usage.worst_case(self.hop, outcome="provider_error" if answered else "unknown"))

    def abandon(self, outcome: Outcome) -> None:
        """Nobody works on the call any more: the provider's connection is closed, what it used so far is charged."""
        if self.answer is not None:
            self.answer.abort()
        if self.charge.resolution is not None:
            return
        if self.hop is None or not self.asked:
            self.charge.void()
        elif self.stream is None:
            self.settle(usage.worst_case(self.hop, outcome=outcome))
        else:
            self.settle_stream("ok" if self.stream.complete else outcome)

    async def resolved(self) -> None:
        """The ledger has the call's figures, or will have them soon."""
        await self.charge.resolved(_SETTLE_WAIT_S)

    def overhead_s(self) -> float:
        """The time so far that was ours, not the provider's."""
        return self.age_s() - self.provider_s

    def age_s(self) -> float:
        """The time since the request arrived, up to its end."""
        return (self._over_s or perf_counter()) - self.began_s

    def over(self) -> None:
        """Nobody works on the call any more but those who count and settle it."""
        self._over_s = perf_counter()

    def report(self, status: int, error_code: str | None) -> CallRecord:
        """The call's figures, without a word of its content; they are one line of the log."""
        record = self._record(status, error_code or (self.stream_error.code if self.stream_error else None))
        log.info(
            "llm_call",
            call_id=record.call_id,
            user_id=str(self.caller.user_id),
            endpoint=record.endpoint,
            model=record.model,
            deployment=record.deployment,
            stream=record.stream,
            status=status,
            error_code=record.error_code,
            outcome=record.outcome,
            estimated=self.usage.estimated if self.usage else False,
            input_tokens=record.counts.prompt_tokens,
            output_tokens=record.counts.output_tokens,
            cost_nano_usd=record.cost_nano_usd,
            duration_ms=round(record.duration_s * 1000, 1),
            provider_ms=round(self.provider_s * 1000, 1),
        )
        return record

    def _record(self, status: int, error_code: str | None) -> CallRecord:
        used, deployment = self.usage, self.hop.deployment if self.hop else None
        return CallRecord(
            call_id=self.charge.request_id,
            endpoint=self.format.endpoint,
            model=self.request.model,
            stream=self.request.stream,
            status=status,
            error_code=error_code,
            outcome=used.outcome if used else "void",
            counts=used.counts if used else usage.NO_TOKENS,
            cost_nano_usd=used.cost_nano_usd if used else 0,
            duration_s=self.age_s(),
            ended_at_ns=time_ns(),
            # of a stream only what came before its first byte was ours; then we wait with the client
            overhead_s=None if self.request.stream else self.overhead_s(),
            first_output_s=self.first_output_s,
            deployment=deployment.id if deployment else None,
            provider=deployment.provider if deployment else None,
            provider_model=deployment.model if deployment else None,
            traceparent=self.traceparent,
        )
