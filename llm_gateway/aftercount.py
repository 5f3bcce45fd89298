"""What a stream used that ended before its provider said so: counted afterwards, beside the calls that still run.

Whoever leaves a stream early pays for the prompt and for what came. Guessed from bytes that is up to nine times too
much for a small prompt; counted with the model's own vocabulary it is what the provider counts. It happens in the task
that settles the call, in a thread of its own: nobody waits for it, and no more waits than is bounded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from llm_gateway.limits.exact_prompt import text_tokens, tokenizer_of
from llm_gateway.limits.read_prompt import read_prompt_tokens
from llm_gateway.plan import Hop
from llm_gateway.usage import Counted
from llm_gateway.wire.format import StreamReader

# Counting goes at 4 to 30 MB a second: what waits is done within a few seconds, well before a lease runs out.
_MOST_WAITING_BYTES: Final = 16 * 1024 * 1024
# For each byte in a prompt that was counted for the hold already, and of which only the tokens are known.
_BYTES_A_TOKEN: Final = 8
# Whose template is OpenAI's own (limits/read_prompt.py).
_OPENAIS: Final = frozenset({"azure", "openai"})


class AfterCount:
    """Counts one call after the other, as long as not too many wait."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="count-afterwards")
        self._waiting_bytes = 0

    def counting(
        self, hop: Hop, body: Mapping[str, object], stream: StreamReader
    ) -> Coroutine[None, None, Counted] | None:
        """What counts the call, to be awaited once; None where its vocabulary is not known, or too many wait.

        The stream must not be fed any more.
        """
        tokenizer = tokenizer_for(hop)
        size_bytes = _text_bytes(hop) + len(stream.text)
        if tokenizer is None or self._waiting_bytes + size_bytes > _MOST_WAITING_BYTES:
            return None
        self._waiting_bytes += size_bytes
        return self._count(hop, body, stream, tokenizer, size_bytes)

    async def _count(
        self, hop: Hop, body: Mapping[str, object], stream: StreamReader, tokenizer: str, size_bytes: int
    ) -> Counted:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, count, hop, body, bytes(stream.text), tokenizer)
        finally:
            self._waiting_bytes -= size_bytes


def tokenizer_for(hop: Hop) -> str | None:
    """The vocabulary of the deployment's model: as the catalogue says, else as its name does where OpenAI serves it."""
    known = hop.model.bounds.tokenizer
    return known if known or hop.deployment.provider != "openai" else tokenizer_of(hop.deployment.model)


def count(hop: Hop, body: Mapping[str, object], written: bytes, tokenizer: str) -> Counted:
    """The prompt as the model reads it, pictures at what one counts for at most, and what it wrote.

    Blocks for as long as it takes. Raises: VocabularyMissing.
    """
    template_known = hop.deployment.provider in _OPENAIS
    read = read_prompt_tokens(body, tokenizer, template_known=template_known) + hop.estimate.media_tokens
    return Counted(
        prompt_tokens=min(read, hop.estimate.prompt_tokens),
        output_tokens=text_tokens([written.decode("utf-8", "replace")], tokenizer),
    )


def _text_bytes(hop: Hop) -> int:
    return hop.estimate.text_bytes or hop.estimate.prompt_tokens * _BYTES_A_TOKEN


COUNTED_AFTERWARDS: Final = AfterCount()
