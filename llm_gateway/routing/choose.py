"""In which order deployments are asked: by weight, the resting ones last, then each fallback the same way."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from llm_gateway.catalog import Catalog, Deployment, PublicModel
from llm_gateway.wire.format import Endpoint

Route = tuple[PublicModel, Deployment]


def order_routes(
    catalog: Catalog,
    model: PublicModel,
    *,
    endpoint: Endpoint,
    rests: Callable[[str], bool],
    allows: Callable[[str], bool] = lambda _model: True,
    chance: Callable[[], float] = random.random,
) -> list[Route]:
    """Every deployment that may answer such a call for the model, best first, each once; its fallbacks' after its own.

    `rests` is asked with a deployment's id, `allows` with the name of a fallback; whoever may use an alias may use
    all that it stands for.
    """
    seen: set[str] = set()
    fresh: list[Route] = []
    resting: list[Route] = []
    for one in catalog.with_fallbacks(model):
        if one is not model and one.name not in model.stands_for and not allows(one.name):
            continue
        able = [where for where in one.deployments if where.answers(endpoint) and where.id not in seen]
        seen.update(where.id for where in able)
        for deployment in _by_weight(able, chance):
            (resting if rests(deployment.id) else fresh).append((one, deployment))
    return fresh + resting


def _by_weight(deployments: Sequence[Deployment], chance: Callable[[], float]) -> list[Deployment]:
    """A random order in which each comes first with a probability proportional to its weight (Efraimidis-Spirakis)."""
    if len(deployments) < 2:
        return list(deployments)
    return sorted(deployments, key=lambda one: chance() ** (1.0 / one.weight), reverse=True)
