"""`GET /v1/models` and `/v1/models/{name}`: what the caller may use, in the words of their SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from llm_gateway.catalog import UnknownModel
from llm_gateway.wire.models import ANTHROPIC_MODELS, OPENAI_MODELS, ModelShape

if TYPE_CHECKING:
    from core.asgi import Scope
    from llm_gateway.caller import Policy
    from llm_gateway.catalog import Catalog, PublicModel
    from llm_gateway.client import Client
    from llm_gateway.pipeline import Pipeline


async def answer_models(pipeline: Pipeline, scope: Scope, client: Client, name: str | None = None) -> None:
    """The client has the list, or the one model. Raises: NotAuthenticated, EndpointNotAllowed, UnknownModel …"""
    caller = await pipeline.callers.identify(client.headers)
    caller.policy.require_endpoint("models")
    # Anthropic's SDKs send this with everything; the address is the same for both vendors.
    shape = ANTHROPIC_MODELS if b"anthropic-version" in client.headers else OPENAI_MODELS
    models = usable_models(pipeline.catalog, caller.policy, shape)
    if name is None:
        body = shape.page(models, scope.get("query_string", b""))
    else:
        body = orjson.dumps(shape.one(_find(models, name)))
    await client.answer_json(200, body, [])


def usable_models(catalog: Catalog, policy: Policy, shape: ModelShape) -> list[PublicModel]:
    """What this policy lets somebody ask for, at some address that their SDK knows; in the catalogue's order."""
    reached = shape.endpoints if policy.endpoints is None else shape.endpoints & policy.endpoints
    return [model for model in catalog if policy.allows_model(model.name) and model.endpoints & reached]


def _find(models: list[PublicModel], name: str) -> PublicModel:
    """Whether a model is forbidden or does not exist is not told apart, as at OpenAI."""
    for model in models:
        if model.name == name:
            return model
    raise UnknownModel(name)
