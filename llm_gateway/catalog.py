"""models.toml, read and checked: which public model names exist, and who answers for them at what price."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from core.errors import NotFound
from llm_gateway.accounting import Price
from llm_gateway.catalog_file import CatalogEntry, DeploymentEntry, ModelEntry, TimeoutsEntry
from llm_gateway.limits.estimate import ModelBounds

# What a server of this protocol answers itself; all else is translated.
_NATIVE: Mapping[str, frozenset[str]] = {
    "openai": frozenset({"chat", "responses", "embeddings"}),
    "anthropic": frozenset({"messages", "count_tokens"}),
}
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


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


@dataclass(frozen=True, slots=True)
class Deployment:
    """One place where a model is served, ready to be asked. `id` is for logs and usage rows.

    `native` are the endpoints (wire/format.py) that it answers itself; for all others it is translated for.
    """

    id: str
    protocol: str
    base_url: str | None
    api_key: SecretStr | None
    model: str
    weight: float
    price: Price
    max_output_field: str
    timeouts: TimeoutsEntry
    native: frozenset[str]


@dataclass(frozen=True, slots=True)
class PublicModel:
    """A model as clients know it. Units: tokens."""

    name: str
    description: str
    note: str | None
    owned_by: str
    created: int
    bounds: ModelBounds
    deployments: tuple[Deployment, ...]
    fallbacks: tuple[str, ...]


class Catalog:
    """The models that can be used. `unavailable` says, for what was left out, which variable is not set."""

    def __init__(self, models: Iterable[PublicModel], unavailable: Iterable[str] = ()) -> None:
        self._models = {model.name: model for model in models}
        self.unavailable = tuple(unavailable)

    def __iter__(self) -> Iterator[PublicModel]:
        return iter(self._models.values())

    def find(self, name: str) -> PublicModel:
        """The model of this name, exactly. Raises: UnknownModel."""
        model = self._models.get(name)
        if model is None:
            raise UnknownModel(name)
        return model

    def with_fallbacks(self, model: PublicModel) -> list[PublicModel]:
        """The model, then those that may answer in its place, nearest first, each once."""
        found = [model]
        for one in found:
            found += [
                self._models[name] for name in one.fallbacks if name in self._models and self._models[name] not in found
            ]
        return found

    def keys(self) -> list[str]:
        """Every provider's key, to be kept out of logs."""
        deployments = [deployment for model in self for deployment in model.deployments]
        return [one.api_key.get_secret_value() for one in deployments if one.api_key is not None]

    def needs_translation(self) -> bool:
        """True when some deployment speaks another protocol than OpenAI's."""
        return any(deployment.protocol != "openai" for model in self for deployment in model.deployments)


def load_catalog(path: Path, environ: Mapping[str, str]) -> Catalog:
    """The catalogue that the file describes, in this environment.

    A deployment whose variables are not set is left out, and a model without deployments too: one file serves every
    environment, and `Catalog.unavailable` has a sentence for each. Raises: CatalogInvalid.
    """
    entry = _read(path)
    problems = [*_problems_of_names(entry), *_problems_of_addresses(entry, environ)]
    if problems:
        raise CatalogInvalid(problems)
    models, unavailable = [], []
    for one in entry.models:
        deployments, missing = _deployments(one, environ)
        unavailable += missing
        if deployments:
            models.append(_model(one, deployments))
    return Catalog(models, unavailable)


def _read(path: Path) -> CatalogEntry:
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file, parse_float=Decimal)  # a price of 0.1 is exactly a tenth
    except OSError as error:
        raise CatalogInvalid([f"The file {path} cannot be read: {error.strerror}."]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogInvalid([f"The file {path} is not valid TOML: {error}."]) from error
    try:
        return CatalogEntry.model_validate(raw)
    except ValidationError as error:
        raise CatalogInvalid(
            f"{_place(problem['loc'], raw)}: {problem['msg'][0].lower()}{problem['msg'][1:]}."
            for problem in error.errors()
        ) from None


def _place(location: tuple[int | str, ...], raw: Mapping[str, object]) -> str:
    """`models[0] (local/smollm2).deployments[1].price…`: where the problem is, with the model's name."""
    place = ""
    for step in location:
        place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else step
        if isinstance(step, int) and place == f"models[{step}]":
            models = raw.get("models")
            one = models[step] if isinstance(models, list) else None
            place += f" ({one.get('name', 'without a name')})" if isinstance(one, dict) else ""
    return place


def _problems_of_names(entry: CatalogEntry) -> Iterator[str]:
    names = [model.name for model in entry.models]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name}: there are {names.count(name)} models of this name."
    fallbacks = {model.name: model.fallbacks for model in entry.models}
    for name, targets in fallbacks.items():
        for target in targets:
            if target not in fallbacks:
                yield f"{name}: falls back to {target}, which does not exist."
    yield from _cycles(fallbacks)


def _cycles(fallbacks: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """A sentence for each model from which its fallbacks lead back to itself."""
    for start in fallbacks:
        seen: set[str] = set()
        ahead = list(fallbacks[start])
        while ahead:
            name = ahead.pop()
            if name == start:
                yield f"{start}: its fallbacks lead back to itself."
                break
            if name not in seen:
                seen.add(name)
                ahead += fallbacks.get(name, ())


def _problems_of_addresses(entry: CatalogEntry, environ: Mapping[str, str]) -> Iterator[str]:
    for model in entry.models:
        for position, deployment in enumerate(model.deployments):
            where = _deployment_id(model, position)
            if deployment.base_url is None and deployment.protocol == "openai":
                yield f"{where}: needs a base_url."
            if _unset(deployment, environ):
                continue
            problem = _problem_of_address(_filled(deployment.base_url, environ))
            if problem:
                yield f"{where}: its base_url {problem}."
            if not _key(deployment, environ).isprintable() or not _key(deployment, environ).isascii():
                yield f"{where}: {deployment.api_key_env} holds what cannot be sent in a header."


def _problem_of_address(address: str) -> str | None:
    if not address:
        return None
    try:
        url = urlsplit(address)
        port_is_number = url.port is None or url.port > 0
    except ValueError:
        return "is not a URL"
    if url.scheme not in {"http", "https"} or not url.hostname or not port_is_number:
        return "must be an http(s) URL"
    if url.username or url.password or url.query or url.fragment:
        return "must have no user name, password, query or fragment (keys belong into api_key_env)"
    return None


def _deployment_id(model: ModelEntry, position: int) -> str:
    return f"{model.name}#{position + 1}"


def _unset(entry: DeploymentEntry, environ: Mapping[str, str]) -> list[str]:
    """The variables that the deployment needs and the environment lacks."""
    needed = {*_VARIABLE.findall(entry.base_url or ""), *([entry.api_key_env] if entry.api_key_env else [])}
    return sorted(name for name in needed if not environ.get(name, "").strip())


def _filled(base_url: str | None, environ: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: environ[found[1]].strip(), base_url or "").rstrip("/")


def _key(entry: DeploymentEntry, environ: Mapping[str, str]) -> str:
    return environ[entry.api_key_env].strip() if entry.api_key_env else ""


def _deployments(model: ModelEntry, environ: Mapping[str, str]) -> tuple[list[Deployment], list[str]]:
    """The model's deployments that this environment can reach, and a sentence for each that it cannot."""
    usable, missing = [], []
    for position, entry in enumerate(model.deployments):
        where = _deployment_id(model, position)
        unset = _unset(entry, environ)
        if unset:
            missing.append(f"{where} is not available: {', '.join(unset)} is not set.")
        else:
            usable.append(_deployment(where, entry, environ))
    return usable, missing


def _deployment(where: str, entry: DeploymentEntry, environ: Mapping[str, str]) -> Deployment:
    price = entry.price_usd_per_million_tokens
    return Deployment(
        id=where,
        protocol=entry.protocol,
        base_url=_filled(entry.base_url, environ) or None,
        api_key=SecretStr(_key(entry, environ)) if entry.api_key_env else None,
        model=entry.model,
        weight=entry.weight,
        price=Price.from_usd_per_million(
            input=price.input,
            cached_input=price.cached_input,
            output=price.output,
        ),
        max_output_field=entry.max_output_field,
        timeouts=entry.timeouts,
        native=_NATIVE.get(entry.protocol, frozenset()) if entry.base_url else frozenset(),
    )


def _model(entry: ModelEntry, deployments: list[Deployment]) -> PublicModel:
    return PublicModel(
        name=entry.name,
        description=entry.description,
        note=entry.note,
        owned_by=entry.owned_by,
        created=entry.created,
        bounds=ModelBounds(
            context_window=entry.context_window,
            max_output_tokens=min(entry.max_output_tokens, entry.context_window),
            image_tokens=entry.image_tokens,
        ),
        deployments=tuple(deployments),
        fallbacks=entry.fallbacks,
    )
