"""The provider's answer on its way to the client, whole or streamed, and the moment at which its usage is known."""

from __future__ import annotations

import asyncio
from typing import Final

from core.errors import BadGateway, ButtressError, GatewayTimeout
from llm_gateway import usage
from llm_gateway.call import Call, error_of_interruption
from llm_gateway.client import Client
from llm_gateway.content.hooks import ContentDenied, ContentRuleFailed
from llm_gateway.limits.ledger import Usage
from llm_gateway.plan import Hop
from llm_gateway.providers.contract import FailureKind, ProviderAnswer, ProviderFailure
from llm_gateway.wire.format import AnswerUnusable, StreamFault, StreamReader
from llm_gateway.wire.headers import RawHeaders, usd

# A chunk carries a token in an envelope of some hundred bytes; with the probabilities of twenty others, some thousand.
_MAX_BYTES_A_TOKEN: Final = 8 * 1024
_FREE_BYTES: Final = 1024 * 1024
# After the last event only the end of the body is due; a provider that forgets it does not keep the client waiting.
_AFTER_DONE_S: Final = 1.0
# A silence may last this much longer than it should, so that the clock need not be set anew with every event.
_SLACK: Final = 0.125
# Rules about content work on what is longer in turns with everybody else.
_LONG_BYTES: Final = 16 * 1024
# How long a client may take to accept the error event that ends its stream.
_FAREWELL_S: Final = 2.0


class OutputLimitReached(BadGateway):
    """The provider went on writing beyond the maximum it was given; the stream was cut there."""

    default_code = "output_limit_reached"
    default_message = "The model wrote more than the maximum it was given, so the answer was cut there."


class StreamCut(BadGateway):
    """The provider's stream ended before the answer did."""

    default_code = "provider_stream_cut"
    default_message = "The model's provider broke off before the answer was complete. What came was charged."


class StreamUnusable(BadGateway):
    """The provider reported an error within its stream, or sent what cannot be read."""

    default_code = "provider_stream_failed"
    default_message = "The model's provider failed before the answer was complete. What came was charged."


class StreamTimeout(GatewayTimeout):
    """The provider fell silent, or the answer took longer than any may take."""

    default_code = "provider_timeout"
    default_message = "The model's provider stopped sending before the answer was complete. What came was charged."


async def deliver_whole(call: Call, client: Client) -> None:
    """The client has the answer, and the ledger is being told its usage.

    The answer does not wait until the books are on disk: what this process tells the ledger later comes later there,
    too, so the client's next call meets this one settled. Raises: ProviderFailure where there is none to pass on.
    """
    (hop, _), raw = _opened(call), call.whole
    try:
        whole = call.format.read_whole(raw)
    except AnswerUnusable as error:
        raise ProviderFailure(FailureKind.UNUSABLE) from error
    used = usage.answered(hop, whole)
    call.settle(used)
    given = await call.rules.answer(whole.body or raw)
    call.kept.passed(given)
    client.provider_s = call.provider_s
    await client.answer_json(200, given, [*_notes(hop), (b"x-buttress-cost-usd", usd(used.cost_nano_usd))])


async def deliver_again(call: Call, client: Client, answer: bytes) -> None:
    """The client has an answer that was given before, if today's rules let it pass; the call cost nothing.

    Raises: ContentDenied, AnswerWithheld.
    """
    call.settle(Usage(counts=usage.NO_TOKENS, cost_nano_usd=0, outcome="cached", endpoint=call.format.endpoint))
    given = await (call.rules.whole_stream(answer) if call.request.stream else call.rules.answer(answer))
    call.kept.passed(given)
    headers: RawHeaders = [(b"x-buttress-cost-usd", usd(0))]
    if not call.request.stream:
        await client.answer_json(200, given, headers)
        return
    call.first_output_s = call.age_s()
    await client.begin_stream(headers)
    await client.send(given)
    call.given = True
    await call.resolved()
    await client.end_stream()


async def deliver_stream(call: Call, client: Client, *, deadline_s: float) -> None:
    """The client has the stream up to its end or an error event, and the ledger its usage.

    Raises: ProviderFailure while nothing was passed on yet, so that the client gets an ordinary error.
    """
    hop, answer = _opened(call)
    first = await _first_piece(call, deadline_s)
    call.first_output_s = call.age_s()
    client.provider_s = call.provider_s
    await client.begin_stream(_notes(hop))
    try:
        error = await _pass_on(call, client, first, deadline_s)
    except asyncio.CancelledError:
        if call.interruption is None or client.gone:
            raise
        call.survive()
        error = None if call.given else error_of_interruption(call.interruption)
    call.given = error is None
    answer.abort()
    call.settle_stream("cut" if error else "ok")
    if error is not None:
        call.stream_error = error
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await client.send(_stream(call).error_event(error, client.request_id))
        except TimeoutError:
            return  # it accepts nothing; left unfinished, the transfer is broken off by the server
    await call.resolved()
    await client.end_stream()


async def _first_piece(call: Call, deadline_s: float) -> bytes:
    """The bytes for the client of the first piece that has any; until then the call can still fail as a whole."""
    stream, (hop, answer) = _stream(call), _opened(call)
    clock = asyncio.get_running_loop().time
    asked_s = clock()
    try:
        async with asyncio.timeout_at(min(deadline_s, asked_s + hop.deployment.timeouts.first_byte_s)):
            while piece := await answer.read():
                came = stream.feed(piece)
                passed = await call.rules.feed_long(came) if len(came) > _LONG_BYTES else call.rules.feed(came)
                if passed:
                    return passed
                if stream.fault is not None:
                    break
    except TimeoutError as error:
        raise ProviderFailure(FailureKind.TIMED_OUT) from error
    finally:
        call.provider_s += clock() - asked_s
    raise ProviderFailure(FailureKind.UNUSABLE)


class _Patience:
    """How long a stream may be silent. Units: seconds of the event loop's clock."""

    __slots__ = ("_clock", "_deadline_s", "_idle_s", "_now_s", "_renew_s")

    def __init__(self, clock: asyncio.Timeout, idle_s: float, deadline_s: float) -> None:
        self._clock = clock
        self._idle_s = idle_s
        self._deadline_s = deadline_s
        self._now_s = asyncio.get_running_loop().time
        self._renew_s = 0.0
        self.renew(ended=False)

    def renew(self, *, ended: bool) -> None:
        """From now on it may be silent for `idle_s`, or up to an eighth longer; after its last event for a second."""
        now_s = self._now_s()
        if ended:
            self._clock.reschedule(min(now_s + _AFTER_DONE_S, self._deadline_s))
        elif now_s >= self._renew_s:
            self._clock.reschedule(min(now_s + self._idle_s * (1 + _SLACK), self._deadline_s))
            self._renew_s = now_s + self._idle_s * _SLACK


async def _pass_on(call: Call, client: Client, first: bytes, deadline_s: float) -> ButtressError | None:
    """What ended the stream before its answer was complete; None when it is complete."""
    stream, (hop, answer) = _stream(call), _opened(call)
    sent_bytes, max_bytes = len(first), _FREE_BYTES + hop.estimate.output_tokens * _MAX_BYTES_A_TOKEN
    try:
        async with asyncio.timeout_at(deadline_s) as clock:
            patience = _Patience(clock, hop.deployment.timeouts.idle_s, deadline_s)
            await client.send(first)
            call.kept.passed(first)
            while stream.fault is None:
                if sent_bytes - stream.echoed_bytes > max_bytes:
                    return OutputLimitReached()
                patience.renew(ended=stream.ended)
                call.given = stream.ended and not call.rules  # a rule may hold words back
                piece = await answer.read()
                came = stream.feed(piece) if piece else stream.end()
                passed = await call.rules.feed_long(came) if len(came) > _LONG_BYTES else call.rules.feed(came)
                if not piece:
                    passed += call.rules.end()
                if passed:
                    sent_bytes += len(passed)
                    await client.send(passed)
                    call.kept.passed(passed)
                if not piece:
                    break
    except (ContentDenied, ContentRuleFailed) as error:
        return error
    except TimeoutError:
        return None if stream.complete else StreamTimeout()
    except ProviderFailure:
        return None if stream.complete else StreamCut()
    if stream.fault is not None:
        return OutputLimitReached() if stream.fault is StreamFault.TOO_MUCH else StreamUnusable()
    return None if stream.complete else StreamCut()


def _notes(hop: Hop) -> RawHeaders:
    return [(b"x-buttress-model-note", hop.model.note.encode())] if hop.model.note else []


def _opened(call: Call) -> tuple[Hop, ProviderAnswer]:
    if call.hop is None or call.answer is None:
        raise AssertionError("delivered before it was asked for")
    return call.hop, call.answer


def _stream(call: Call) -> StreamReader:
    if call.stream is None:
        raise AssertionError("streamed without being asked to")
    return call.stream
