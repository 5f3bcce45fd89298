"""The models that can be used here: which public names exist, and who answers for them at what price.

Read from models.toml by catalog_load.py; its shape is in catalog_file.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from core.errors import InvalidInput, NotFound
from llm_gateway.accounting import Price
from llm_gateway.catalog_file import TimeoutsEntry
from llm_gateway.limits.estimate import ModelBounds
from llm_gateway.wire.format import Endpoint

_PUBLIC_OPTIONS = frozenset({"aws_region_name", "api_version"})


class CatalogInvalid(ValueError):
    """models.toml cannot be used; `problems` names everything that is wrong with it, at once."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("models.toml cannot be used:\n" + "\n".join(f"  - {problem}" for problem in self.problems))


class UnknownModel(NotFound):
    """The catalogue has no such model, or none that can be used here."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The model `{name[:128]}` does not exist here. GET /llm/v1/models lists those that do.",
            code="model_not_found",
            details={"param": "model"},
        )


class EndpointUnanswered(InvalidInput):
    """The model exists, and nobody answers such calls for it."""

    def __init__(self, name: str, endpoint: Endpoint) -> None:
        super().__init__(
            f"The model `{name[:128]}` does not answer `{endpoint}` calls. GET /llm/v1/models shows what each answers.",
            code="unsupported_endpoint",
            details={"param": "model"},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One place where a model is served, ready to be asked. `id` is for logs and usage rows.

    Calls in `native` are sent to the address there as they are, with `headers`; those in `translated` go through
    litellm, which knows the place as `litellm_model` and needs `litellm_options`. `headers` and `litellm_options` hold
    secrets.
    """

    id: str
    provider: str
    base_url: str | None
    api_key: SecretStr | None
    model: str
    weight: float
    price: Price
    max_output_field: str
    timeouts: TimeoutsEntry
    native: Mapping[Endpoint, str]
    translated: frozenset[Endpoint]
    headers: Mapping[str, str] = field(repr=False)
    litellm_model: str
    litellm_base_url: str | None
    litellm_options: Mapping[str, str] = field(repr=False)
    leaves_out: frozenset[str] = frozenset()
    renames: Mapping[str, str] = field(default_factory=dict)
    unasked_service_tier: str | None = None

    def answers(self, endpoint: Endpoint) -> bool:
        """True when it can be asked, in its own words or translated."""
        return endpoint in self.native or endpoint in self.translated

    def fitted(self, endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
        """The native body without what the provider refuses, its fields named as it names them."""
        if endpoint != "chat" or not (self.leaves_out or self.renames):
            return body
        return {self.renames.get(name, name): value for name, value in body.items() if name not in self.leaves_out}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicModel:
    """A model as clients know it. Units: tokens. An alias is a model too, with the deployments of what it stands for.

    `stands_for` are the names of the models that an alias stands for, the best first; empty for any other model.
    """

    name: str
    description: str
    note: str | None
    owned_by: str
    created: int
    bounds: ModelBounds
    deployments: tuple[Deployment, ...]
    fallbacks: tuple[str, ...]
    endpoints: frozenset[Endpoint]
    stands_for: tuple[str, ...] = ()
    cache_ttl_s: int | None = None


class Catalog:
    """The models that can be used. `unavailable` says, for what was left out, which variable is not set."""

    def __init__(self, models: Iterable[PublicModel], unavailable: Iterable[str] = ()) -> None:
        self._models = {model.name: model for model in models}
        self._with_fallbacks = {model.name: self._reached_from(model) for model in self._models.values()}
        self.unavailable = tuple(unavailable)

    def __iter__(self) -> Iterator[PublicModel]:
        return iter(self._models.values())

    def find(self, name: str) -> PublicModel:
        """The model of this name, exactly. Raises: UnknownModel."""
        model = self._models.get(name)
        if model is None:
            raise UnknownModel(name)
        return model

    def with_fallbacks(self, model: PublicModel) -> tuple[PublicModel, ...]:
        """The model, then those that may answer in its place, nearest first, each once."""
        return self._with_fallbacks[model.name]

    def _reached_from(self, model: PublicModel) -> tuple[PublicModel, ...]:
        found = [model]
        for one in found:
            found += [
                self._models[name] for name in one.fallbacks if name in self._models and self._models[name] not in found
            ]
        return tuple(found)

    def secrets(self) -> list[str]:
        """Every provider's key and whatever else of theirs is secret, to be kept out of logs."""
        found: list[str] = []
        for deployment in (one for model in self for one in model.deployments):
            if deployment.api_key is not None:
                found.append(deployment.api_key.get_secret_value())
            found += [value for name, value in deployment.litellm_options.items() if name not in _PUBLIC_OPTIONS]
        return found

    def needs_translation(self) -> bool:
        """True when some model cannot answer the commonest calls without litellm; the others wait for it once."""
        return any("chat" in one.translated for model in self for one in model.deployments)
