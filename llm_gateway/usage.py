"""What a call used, at any moment and however it ended; what nobody reported is marked `estimated`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from core.logging import get_logger
from llm_gateway.accounting import TokenCounts, cost_nano_usd, may_be_given, unpriced
from llm_gateway.limits.ledger import Outcome, Usage
from llm_gateway.plan import Hop
from llm_gateway.wire.answer_stream import estimate_output_tokens, grown
from llm_gateway.wire.format import StreamReader, WholeAnswer

log = get_logger(__name__)

# The hold bounds a prompt by its bytes. What a prompt probably was lies well below: English has four and a half bytes a
# token, German three and a half, Chinese two and a half (o200k). With three, nobody pays several times their prompt.
_PROMPT_BYTES_A_TOKEN: Final = 3
# What is held bounds what a call can use, but for a vendor's own instructions and a maximum that is not obeyed. One
# answer that reports a billion tokens must not spend somebody's month.
_BELIEVABLE_HOLDS: Final = 8
_BELIEVABLE_TOKENS: Final = 100_000


NO_TOKENS: Final = TokenCounts()


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of a call that nobody reported on."""

    prompt_tokens: int
    output_tokens: int


def answered(hop: Hop, answer: WholeAnswer) -> Usage:
    """A whole answer: exactly what the provider says it did, where it says it."""
    written = estimate_output_tokens(chunks=0, text_bytes=answer.text_bytes)
    most = hop.estimate.output_tokens  # what the provider was told, and what is charged for what nobody can count
    return _finished(hop, answer.counts, most if answer.has_media else min(written, most), answer.service, outcome="ok")


def reported(hop: Hop, counts: TokenCounts, service: str | None = None, *, outcome: Outcome = "ok") -> Usage:
    """Exactly what the provider says it did, in the service tier that it says it gave.

    More than any call of this size can have used is a provider's mistake: then it is all that was held, as an estimate.
    """
    return _priced(hop, counts, service, estimated=False, outcome=outcome)


def streamed(
    hop: Hop,
    stream: StreamReader,
    *,
    outcome: Outcome,
    told: TokenCounts | None = None,
    counted: Counted | None = None,
) -> Usage:
    """What a stream has used so far: prompt, and what came; exact when it reached its end and reported its usage.

    `told` is what the provider said so far beside the stream, `counted` what was counted since, in place of guesses.
    """
    written = stream.output_tokens
    if counted is not None:
        written = stream.with_what_is_no_text(max(stream.chunks, counted.output_tokens))
    if stream.complete and stream.counts is not None:
        return _finished(hop, stream.counts, written, stream.service, outcome=outcome)
    seen = grown(stream.counts, told)
    nothing_done = seen == NO_TOKENS and not written
    counts = NO_TOKENS if nothing_done else _filled(hop, seen or NO_TOKENS, written, counted)
    return _priced(hop, counts, stream.service, estimated=True, outcome=outcome)


def _finished(hop: Hop, counts: TokenCounts | None, written: int, service: str | None, *, outcome: Outcome) -> Usage:
    """A whole answer. Where all are noughts its format says so, because surely nothing was done."""
    if counts == NO_TOKENS:
        return reported(hop, NO_TOKENS, service, outcome=outcome)
    said = counts or NO_TOKENS
    filled = _filled(hop, said, 0 if said.output_tokens else written)
    return _priced(hop, filled, service, estimated=filled != counts, outcome=outcome)


def _filled(hop: Hop, said: TokenCounts, written: int, counted: Counted | None = None) -> TokenCounts:
    """What was said, with a prompt where it has none, and with at least what was seen of the output."""
    if not said.prompt_tokens:
        prompt = _probable_prompt(hop, counted)
        said = replace(said, input=prompt.input, input_audio=prompt.input_audio)
    return replace(said, output=said.output + max(0, written - said.output_tokens))


def worst_case(hop: Hop, *, outcome: Outcome) -> Usage:
    """All that this deployment may have done, when nobody knows what it did."""
    estimate = hop.estimate
    return Usage(
        counts=TokenCounts(
            input=estimate.prompt_tokens, input_audio=estimate.audio_tokens, output=estimate.output_tokens
        ),
        cost_nano_usd=hop.most_nano_usd,
        estimated=True,
        outcome=outcome,
        deployment=hop.deployment.id,
    )


def _probable_prompt(hop: Hop, counted: Counted | None) -> TokenCounts:
    """What was counted; else a third of what the bytes bound, and all of a text that was counted for the hold."""
    estimate = hop.estimate
    if counted is not None:
        text = counted.prompt_tokens
    elif estimate.fixed_tokens > 0 and not estimate.text_bytes:
        text = estimate.prompt_tokens
    else:
        text = -(-estimate.prompt_tokens // _PROMPT_BYTES_A_TOKEN)
    return TokenCounts(
        input=max(text, 1),
        input_audio=-(-estimate.audio_tokens // _PROMPT_BYTES_A_TOKEN),
    )


def _priced(hop: Hop, counts: TokenCounts, service: str | None, *, estimated: bool, outcome: Outcome) -> Usage:
    """Where the provider does not say which service it gave, the dearest of those that it may have given."""
    deployment = hop.deployment
    if counts.total > _BELIEVABLE_HOLDS * hop.estimate.tokens + _BELIEVABLE_TOKENS:
        log.warning("usage_not_believable", deployment=deployment.id, tokens=counts.total, held=hop.estimate.tokens)
        return worst_case(hop, outcome=outcome)
    counts = _by_age(hop, counts)
    may_be = {service}
    if service is None:
        may_be = may_be_given(hop.estimate.service, deployment.unasked_service_tier)
    return Usage(
        counts=counts,
        cost_nano_usd=max(cost_nano_usd(deployment.price, counts, service=one) for one in may_be),
        # what has no rate was charged at the dearest one
        estimated=estimated or bool(unpriced(deployment.price, counts, service=service)),
        outcome=outcome,
        deployment=deployment.id,
    )


def _by_age(hop: Hop, counts: TokenCounts) -> TokenCounts:
    """A translated answer says what was written to a cache, and not for how long: for as long as was asked."""
    if not counts.cache_write_5m or counts.cache_write_1h:
        return counts
    asked = {name for name, _ in hop.estimate.classes}
    if "cache_write_1h" not in asked or "cache_write_5m" in asked:
        return counts
    return replace(counts, cache_write_5m=0, cache_write_1h=counts.cache_write_5m)
