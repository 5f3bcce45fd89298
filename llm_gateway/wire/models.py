"""The list of models in OpenAI's format, with what ours has to say beside it.

Source: OpenAI API reference, "List models" and "Retrieve model".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_gateway.catalog import PublicModel


def models_body(models: Iterable[PublicModel]) -> bytes:
    """`{"object": "list", "data": [...]}`, in the catalogue's order."""
    return orjson.dumps({"object": "list", "data": [_shown(model) for model in models]})


def model_body(model: PublicModel) -> bytes:
    """One model object."""
    return orjson.dumps(_shown(model))


def _shown(model: PublicModel) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "description": model.description,
        "context_window": model.bounds.context_window,
        "max_output_tokens": model.bounds.max_output_tokens,
    }
