"""What a call used, at any moment and however it ended. Pure; what nobody reported is marked `estimated`."""

from __future__ import annotations

from typing import Final

from llm_gateway.accounting import cost_nano_usd
from llm_gateway.limits.ledger import Outcome, Usage
from llm_gateway.plan import Hop
from llm_gateway.wire.openai_answer import ChatStream, ReportedUsage, estimate_output_tokens

# The hold bounds a prompt by its bytes. What a prompt probably was lies well below: English has four and a half bytes a
# token, German three and a half, Chinese two and a half (o200k). With three, nobody pays several times their prompt.
_PROMPT_BYTES_A_TOKEN: Final = 3


def reported(hop: Hop, usage: ReportedUsage, *, outcome: Outcome = "ok") -> Usage:
    """Exactly what the provider says it did."""
    return _priced(hop, usage, estimated=False, outcome=outcome)


def unreported(hop: Hop, *, text_bytes: int) -> Usage:
    """A whole answer whose provider gave no figures."""
    output_tokens = estimate_output_tokens(chunks=0, text_bytes=text_bytes)
    return _priced(hop, ReportedUsage(_probable_prompt(hop), 0, output_tokens), estimated=True, outcome="ok")


def streamed(hop: Hop, stream: ChatStream, *, outcome: Outcome) -> Usage:
    """What a stream has used so far: prompt, and what came; exact when it reached its end and reported its usage."""
    seen = stream.usage
    if stream.complete and seen is not None:
        return reported(hop, seen, outcome=outcome)
    usage = ReportedUsage(
        input_tokens=seen.input_tokens if seen else _probable_prompt(hop),
        cached_input_tokens=seen.cached_input_tokens if seen else 0,
        output_tokens=max(stream.output_tokens, seen.output_tokens if seen else 0),
    )
    return _priced(hop, usage, estimated=True, outcome=outcome)


def worst_case(hop: Hop, *, outcome: Outcome) -> Usage:
    """All that this deployment may have done, when nobody knows what it did."""
    return Usage(
        input_tokens=hop.estimate.prompt_tokens,
        output_tokens=hop.estimate.output_tokens,
        cost_nano_usd=hop.most_nano_usd,
        estimated=True,
        outcome=outcome,
        deployment=hop.deployment.id,
    )


def _probable_prompt(hop: Hop) -> int:
    return max(1, -(-hop.estimate.prompt_tokens // _PROMPT_BYTES_A_TOKEN))


def _priced(hop: Hop, usage: ReportedUsage, *, estimated: bool, outcome: Outcome) -> Usage:
    fresh_input_tokens = usage.input_tokens - usage.cached_input_tokens
    return Usage(
        input_tokens=fresh_input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        cost_nano_usd=cost_nano_usd(
            hop.deployment.price,
            input_tokens=fresh_input_tokens,
            cached_input_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
        ),
        estimated=estimated,
        outcome=outcome,
        deployment=hop.deployment.id,
    )
