"""The list of models, as OpenAI's and as Anthropic's clients read it.

Source: OpenAI API reference, "List models" and "Retrieve model"; Anthropic API reference, "List Models" and "Get a
Model" (2026-11). What ours has to say beyond OpenAI's four fields stands beside them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import parse_qs

import orjson

from core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_gateway.catalog import PublicModel
    from llm_gateway.wire.format import Endpoint

_PAGE: Final = 20
_LARGEST_PAGE: Final = 1000


class ModelShape(Protocol):
    """How a vendor lists models, and which of its addresses a model must answer to be of any use to its clients."""

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        """Those addresses."""
        ...

    def one(self, model: PublicModel) -> dict[str, object]:
        """The model's object."""
        ...

    def page(self, models: Sequence[PublicModel], query: bytes) -> bytes:
        """The list, or the page of it that the query string asks for. Raises: InvalidInput."""
        ...


class OpenAIModels:
    """`{"object": "list", "data": [...]}`: all of them at once."""

    endpoints: Final[frozenset[Endpoint]] = frozenset({"chat", "responses", "embeddings"})

    def one(self, model: PublicModel) -> dict[str, object]:
        return {
            "id": model.name,
            "object": "model",
            "created": model.created,
            "owned_by": model.owned_by,
            "description": model.description,
            "context_window": model.bounds.context_window,
            "max_output_tokens": model.bounds.max_output_tokens,
        }

    def page(self, models: Sequence[PublicModel], query: bytes) -> bytes:
        return orjson.dumps({"object": "list", "data": [self.one(model) for model in models]})


class AnthropicModels:
    """Pages of `limit` models after, or before, the one that is named."""

    endpoints: Final[frozenset[Endpoint]] = frozenset({"messages", "count_tokens"})

    def one(self, model: PublicModel) -> dict[str, object]:
        return {
            "type": "model",
            "id": model.name,
            "display_name": model.name,
            "created_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
            "lifecycle": "active",
            "max_input_tokens": model.bounds.context_window,
            "max_tokens": model.bounds.max_output_tokens,
        }

    def page(self, models: Sequence[PublicModel], query: bytes) -> bytes:
        asked = parse_qs(query.decode("latin-1"))
        limit = _limit(asked.get("limit", [str(_PAGE)])[-1])
        names = [model.name for model in models]
        if "before_id" in asked:
            before = _position(names, asked["before_id"][-1], "before_id")
            shown, more = models[max(0, before - limit) : before], before > limit
        else:
            after = _position(names, asked["after_id"][-1], "after_id") + 1 if "after_id" in asked else 0
            shown, more = models[after : after + limit], len(models) > after + limit
        ends = {"first_id": shown[0].name, "last_id": shown[-1].name} if shown else {"first_id": None, "last_id": None}
        return orjson.dumps({"data": [self.one(model) for model in shown], "has_more": more, **ends})


OPENAI_MODELS: Final = OpenAIModels()
ANTHROPIC_MODELS: Final = AnthropicModels()


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:6]) <= _LARGEST_PAGE:
        raise InvalidInput(f"`limit` must be a whole number from 1 to {_LARGEST_PAGE}.", details={"param": "limit"})
    return int(text[:6])


def _position(names: Sequence[str], name: str, param: str) -> int:
    if name not in names:
        raise InvalidInput(f"`{param}` must be the id of a model in this list.", details={"param": param})
    return names.index(name)
