"""Counts of prompts for deployments that cannot count: the bound that a call would be held for, never too low.

One token a byte of the prompt's JSON, so about three to four times the truth for English (docs/decisions/0106).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from llm_gateway.limits.estimate_messages import estimate_messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_gateway.catalog import PublicModel
    from llm_gateway.providers.contract import ProviderCall


class CountedAnswer:
    """An answer made here; see ProviderAnswer."""

    def __init__(self, body: bytes) -> None:
        self._left = body

    async def read(self) -> bytes:
        return self.unread()

    def unread(self) -> bytes:
        body, self._left = self._left, b""
        return body

    def abort(self) -> None:
        self._left = b""

    def reported(self) -> None:
        """All that is said stands in the bytes."""


class CountingProvider:
    """Answers count_tokens without asking anybody."""

    def __init__(self, models: Iterable[PublicModel]) -> None:
        self._bounds = {deployment.id: model.bounds for model in models for deployment in model.deployments}

    async def ready(self) -> None:
        """Nothing is needed."""

    async def open(self, call: ProviderCall) -> CountedAnswer:
        estimate = estimate_messages(call.body, self._bounds[call.deployment.id])
        return CountedAnswer(orjson.dumps({"input_tokens": estimate.unclipped_prompt_tokens}))
