"""A deployment of models.toml, its provider's preset and the environment, joined into what can be asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from llm_gateway.accounting import Price
from llm_gateway.catalog import Deployment
from llm_gateway.catalog_file import CatalogEntry, DeploymentEntry, ModelEntry
from llm_gateway.catalog_prices import price_of
from llm_gateway.prices import PriceFile, PriceNotFound
from llm_gateway.providers.presets import PRESETS, Preset
from llm_gateway.wire.format import Endpoint

_VARIABLE: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(\??)\}")
# What Azure's dated addresses know; source: Azure OpenAI REST API reference, 2024-10-21.
_DATED: Final = frozenset[Endpoint]({"chat", "embeddings"})


def problems_of_deployments(catalog: CatalogEntry, environ: Mapping[str, str], prices: PriceFile) -> Iterator[str]:
    """A sentence for everything that is wrong with the deployments, whatever else is not set."""
    for model in catalog.models:
        for position, entry in enumerate(model.deployments):
            where = _id(model, position)
            yield from _problems_of_shape(where, entry)
            yield from _problems_of_price(where, entry, prices)
            if not _unset(entry, environ):
                yield from _problems_of_values(where, entry, environ)


def deployments_of(
    model: ModelEntry, environ: Mapping[str, str], prices: PriceFile
) -> tuple[list[Deployment], list[str]]:
    """The model's deployments that this environment can reach, and a sentence for each that it cannot."""
    usable, missing = [], []
    for position, entry in enumerate(model.deployments):
        where = _id(model, position)
        unset = _unset(entry, environ)
        if unset:
            missing.append(
                f"{where} is not available: {', '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set."
            )
        else:
            usable.append(_deployment(where, model, entry, environ, price_of(entry, prices)))
    return usable, missing


def _id(model: ModelEntry, position: int) -> str:
    return f"{model.name}#{position + 1}"


def _problems_of_shape(where: str, entry: DeploymentEntry) -> Iterator[str]:
    preset = PRESETS[entry.provider]
    if entry.provider == "openai-compatible" and entry.base_url is None:
        yield f"{where}: needs a base_url, or a provider that has one."
    if entry.api_version is not None and entry.provider != "azure":
        yield f"{where}: has an api_version, which only azure knows."
    if unknown := entry.options.keys() - preset.options.keys():
        known = f"it knows {', '.join(preset.options)}" if preset.options else "it has none"
        yield f"{where}: {entry.provider} has no option {', '.join(sorted(unknown))} ({known})."


def _problems_of_price(where: str, entry: DeploymentEntry, prices: PriceFile) -> Iterator[str]:
    try:
        price_of(entry, prices)
    except PriceNotFound as unknown:
        yield (
            f"{where}: {entry.model} has no price: {unknown}. Say it in price_usd_per_million_tokens (0 for a free "
            'model), or name an entry of litellm\'s price file, as in price = "litellm:azure/gpt-5-mini".'
        )


def _problems_of_values(where: str, entry: DeploymentEntry, environ: Mapping[str, str]) -> Iterator[str]:
    address = _address_of(entry, environ)
    problem = _problem_of_address(address)
    if problem:
        yield f"{where}: its base_url {problem}."
    # litellm adds the version itself, so it must be there to be taken off
    elif entry.provider == "anthropic" and not address.endswith("/v1"):
        yield f"{where}: its base_url must end with /v1."
    values = {_key_variable(entry) or "": _key(entry, environ)}
    values |= {name: _filled(value, environ) for name, value in _options(entry).items()}
    for name, value in values.items():
        if not value.isprintable() or not value.isascii():
            yield f"{where}: {name} holds what cannot be sent in a header."


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


def _unset(entry: DeploymentEntry, environ: Mapping[str, str]) -> list[str]:
    """The variables that the deployment needs and the environment lacks, all of them."""
    texts = [_base_url(entry), *_options(entry).values()]
    needed = {name for text in texts for name, optional in _VARIABLE.findall(text) if not optional}
    if key := _key_variable(entry):
        needed.add(key)
    return sorted(name for name in needed if not environ.get(name, "").strip())


def _filled(text: str, environ: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: environ.get(found[1], "").strip(), text)


def _address_of(entry: DeploymentEntry, environ: Mapping[str, str]) -> str:
    """The base URL, whether its variable ends with a slash or not."""
    return _VARIABLE.sub(lambda found: environ.get(found[1], "").strip().rstrip("/"), _base_url(entry))


def _base_url(entry: DeploymentEntry) -> str:
    return (entry.base_url or PRESETS[entry.provider].base_url or "").rstrip("/")


def _options(entry: DeploymentEntry) -> dict[str, str]:
    return {**PRESETS[entry.provider].options, **entry.options}


def _key_variable(entry: DeploymentEntry) -> str | None:
    return entry.api_key_env or PRESETS[entry.provider].key


def _key(entry: DeploymentEntry, environ: Mapping[str, str]) -> str:
    variable = _key_variable(entry)
    return environ[variable].strip() if variable else ""


def _deployment(
    where: str, model: ModelEntry, entry: DeploymentEntry, environ: Mapping[str, str], price: Price
) -> Deployment:
    preset = PRESETS[entry.provider]
    key = _key(entry, environ)
    base_url = _address_of(entry, environ)
    native = [one for one in _native(entry) if one in model.endpoints]
    options = {name: _filled(value, environ) for name, value in _options(entry).items()}
    options |= {"api_version": entry.api_version or ""}
    return Deployment(
        id=where,
        provider=entry.provider,
        base_url=base_url or None,
        api_key=SecretStr(key) if key else None,
        model=entry.model,
        weight=entry.weight,
        price=price,
        unasked_service_tier=entry.unasked_service_tier,
        max_output_field=entry.max_output_field or preset.max_output_field,
        timeouts=entry.timeouts,
        native={one: _address(preset, base_url, one, entry) for one in native},
        translated=frozenset(one for one in model.endpoints if one not in native and preset.can_translate(one)),
        headers=_headers(preset, key),
        litellm_model=f"{'azure' if entry.api_version else preset.translated_by}/{entry.model}",
        litellm_base_url=(base_url.removesuffix("/v1") if entry.provider == "anthropic" else base_url) or None,
        litellm_options={name: value for name, value in options.items() if value},
        leaves_out=preset.leaves_out,
        renames=preset.renames,
    )


def _native(entry: DeploymentEntry) -> tuple[Endpoint, ...]:
    native = PRESETS[entry.provider].native if entry.native is None else entry.native
    return tuple(one for one in native if entry.api_version is None or one in _DATED)


def _address(preset: Preset, base_url: str, endpoint: Endpoint, entry: DeploymentEntry) -> str:
    if entry.api_version is None:
        return base_url + preset.path(endpoint)
    root = base_url.removesuffix("/v1")
    return f"{root}/deployments/{entry.model}{preset.path(endpoint)}?api-version={entry.api_version}"


def _headers(preset: Preset, key: str) -> dict[str, str]:
    headers = dict(preset.headers)
    if key and preset.auth == "bearer":
        headers["authorization"] = f"Bearer {key}"
    elif key:
        headers[preset.auth] = key
    return headers
