"""What a call used, at any moment and however it ended. Pure; what nobody reported is marked `estimated`."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from llm_gateway.accounting import TokenCounts, cost_nano_usd
from llm_gateway.limits.ledger import Outcome, Usage
from llm_gateway.plan import Hop
from llm_gateway.wire.answer_stream import estimate_output_tokens
from llm_gateway.wire.format import StreamReader

# The hold bounds a prompt by its bytes. What a prompt probably was lies well below: English has four and a half bytes a
# token, German three and a half, Chinese two and a half (o200k). With three, nobody pays several times their prompt.
_PROMPT_BYTES_A_TOKEN: Final = 3


def reported(hop: Hop, counts: TokenCounts, *, outcome: Outcome = "ok") -> Usage:
    """Exactly what the provider says it did."""
    return _priced(hop, counts, estimated=False, outcome=outcome)


def unreported(hop: Hop, *, text_bytes: int) -> Usage:
    """A whole answer whose provider gave no figures."""
    output_tokens = estimate_output_tokens(chunks=0, text_bytes=text_bytes)
    return _priced(hop, TokenCounts(input=_probable_prompt(hop), output=output_tokens), estimated=True, outcome="ok")


def streamed(hop: Hop, stream: StreamReader, *, outcome: Outcome) -> Usage:
    """What a stream has used so far: prompt, and what came; exact when it reached its end and reported its usage."""
    seen = stream.counts
    if stream.complete and seen is not None:
        return reported(hop, seen, outcome=outcome)
    so_far = seen or TokenCounts(input=_probable_prompt(hop))
    unseen = max(0, stream.output_tokens - so_far.output_tokens)
    return _priced(hop, replace(so_far, output=so_far.output + unseen), estimated=True, outcome=outcome)


def worst_case(hop: Hop, *, outcome: Outcome) -> Usage:
    """All that this deployment may have done, when nobody knows what it did."""
    return Usage(
        counts=TokenCounts(input=hop.estimate.prompt_tokens, output=hop.estimate.output_tokens),
        cost_nano_usd=hop.most_nano_usd,
        estimated=True,
        outcome=outcome,
        deployment=hop.deployment.id,
    )


def _probable_prompt(hop: Hop) -> int:
    return max(1, -(-hop.estimate.prompt_tokens // _PROMPT_BYTES_A_TOKEN))


def _priced(hop: Hop, counts: TokenCounts, *, estimated: bool, outcome: Outcome) -> Usage:
    return Usage(
        counts=counts,
        cost_nano_usd=cost_nano_usd(hop.deployment.price, counts),
        estimated=estimated,
        outcome=outcome,
        deployment=hop.deployment.id,
    )
