"""A second look at a call that was refused by the bound of its bytes: its text is counted, and the hold tried again."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from llm_gateway.limits.exact_prompt import exact_prompt_tokens, is_read
from llm_gateway.limits.ledger import CallTooLarge, LimitExceeded
from llm_gateway.plan import Hop, Plan

# Up to here counting takes about as long as one round trip to the database, and is done at once.
_COUNTED_AT_ONCE_BYTES: Final = 64 * 1024
# Beyond, nobody's limit leaves room for what even the best case would be, and counting would take a second.
_MOST_COUNTED_BYTES: Final = 4 * 1024 * 1024
# Ordinary text has three to five bytes a token. Whoever has not even room for a tenth of the bytes is not counted for:
# a caller without a budget cannot make us count all day.
_MOST_BYTES_A_TOKEN: Final = 10

# One at a time: counting is work for one core, and the others have calls to serve.
_counting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="count-tokens")


async def counted_plan(plan: Plan, body: object, refusal: LimitExceeded | CallTooLarge) -> Plan | None:
    """The plan with the text of its prompt counted, to hold again; None where that cannot help against this refusal.

    Held for is the first deployment, so it is its vocabulary that must be known; others are counted where they can be.
    """
    if not plan.hops or not _countable(plan.hops[0]) or not _may_fit(plan.hops[0], refusal):
        return None
    return await counted_where_known(plan, body)


async def counted_where_known(plan: Plan, body: object) -> Plan:
    """The plan with the text of its prompt counted for every deployment whose vocabulary is known."""
    text_tokens: dict[str, int] = {}
    hops: list[Hop] = []
    for hop in plan.hops:
        tokenizer = hop.model.bounds.tokenizer
        if tokenizer is not None and _countable(hop):
            if tokenizer not in text_tokens:
                text_tokens[tokenizer] = await _count(body, tokenizer, hop.estimate.text_bytes)
            hops.append(_with(hop, text_tokens[tokenizer]))
        else:
            hops.append(hop)
    return Plan(tuple(hops))


def _countable(hop: Hop) -> bool:
    return hop.model.bounds.tokenizer is not None and 0 < hop.estimate.text_bytes <= _MOST_COUNTED_BYTES


def _with(hop: Hop, text_tokens: int) -> Hop:
    return Hop(hop.model, hop.deployment, hop.estimate.counted(text_tokens))


def _may_fit(hop: Hop, refusal: LimitExceeded | CallTooLarge) -> bool:
    """True when the limit is one of tokens or money, and the text at its very shortest would leave room."""
    if refusal.limit_name in {"requests_per_minute", "calls_in_flight"}:
        return False
    shortest = _with(hop, hop.estimate.text_bytes // _MOST_BYTES_A_TOKEN)
    needed = shortest.most_nano_usd if "nano_usd" in refusal.limit_name else shortest.estimate.tokens
    return needed <= (refusal.state.limit if isinstance(refusal, CallTooLarge) else refusal.state.remaining)


async def _count(body: object, tokenizer: str, text_bytes: int) -> int:
    if text_bytes <= _COUNTED_AT_ONCE_BYTES and is_read(tokenizer):
        return exact_prompt_tokens(body, tokenizer)
    return await asyncio.get_running_loop().run_in_executor(_counting, exact_prompt_tokens, body, tokenizer)
