"""models.toml, read and checked: everything that is wrong with it is named at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

from pydantic import ValidationError

from llm_gateway.catalog import Catalog, CatalogInvalid, Deployment, PublicModel
from llm_gateway.catalog_deployments import deployments_of, problems_of_deployments
from llm_gateway.catalog_file import AliasEntry, CatalogEntry, ModelEntry
from llm_gateway.limits.estimate import ModelBounds
from llm_gateway.limits.exact_prompt import VocabularyMissing, check_vocabulary
from llm_gateway.prices import PriceFile


def load_catalog(path: Path, environ: Mapping[str, str]) -> Catalog:
    """The catalogue that the file describes, in this environment.

    A deployment whose variables are not set is left out, and a model without deployments too: one file serves every
    environment, and `Catalog.unavailable` has a sentence for each. Raises: CatalogInvalid.
    """
    entry = _read(path)
    prices = PriceFile()
    problems = [*_problems_of_names(entry), *_problems_of_tokenizers(entry)]
    problems += problems_of_deployments(entry, environ, prices)
    if problems:
        raise CatalogInvalid(problems)
    models: dict[str, PublicModel] = {}
    unavailable: list[str] = []
    for one in entry.models:
        deployments, missing = deployments_of(one, environ, prices)
        unavailable += missing
        if deployments:
            models[one.name] = _model(one, deployments)
    aliases = {alias.name: alias for alias in entry.aliases}
    for alias in entry.aliases:
        usable = [models[name] for name in _stands_for(alias, aliases) if name in models]
        if usable:
            models[alias.name] = _alias(alias, usable)
        else:
            unavailable.append(f"{alias.name} is not available: nothing that it stands for is.")
    return Catalog(models.values(), unavailable)


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
        if isinstance(step, int) and place in (f"models[{step}]", f"aliases[{step}]"):
            listed = raw.get(place.partition("[")[0])
            one = listed[step] if isinstance(listed, list) else None
            place += f" ({one.get('name', 'without a name')})" if isinstance(one, dict) else ""
    return place


def _problems_of_names(entry: CatalogEntry) -> Iterator[str]:
    names = [*(model.name for model in entry.models), *(alias.name for alias in entry.aliases)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name}: there are {names.count(name)} models of this name."
    leads_to = {model.name: model.fallbacks for model in entry.models}
    leads_to |= {alias.name: alias.alias_of for alias in entry.aliases}
    aliases = {alias.name for alias in entry.aliases}
    for name, targets in leads_to.items():
        for target in targets:
            if target not in leads_to:
                yield f"{name}: {'stands for' if name in aliases else 'falls back to'} {target}, which does not exist."
    yield from _cycles(leads_to)


def _problems_of_tokenizers(entry: CatalogEntry) -> Iterator[str]:
    for model in entry.models:
        try:
            if model.tokenizer is not None:
                check_vocabulary(model.tokenizer)
        except VocabularyMissing as missing:
            yield f"{model.name}: {missing}."


def _cycles(leads_to: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """A sentence for each name from which fallbacks and aliases lead back to itself."""
    for start in leads_to:
        seen: set[str] = set()
        ahead = list(leads_to[start])
        while ahead:
            name = ahead.pop()
            if name == start:
                yield f"{start}: its fallbacks lead back to itself."
                break
            if name not in seen:
                seen.add(name)
                ahead += leads_to.get(name, ())


def _stands_for(alias: AliasEntry, aliases: Mapping[str, AliasEntry]) -> list[str]:
    """The models behind the alias, however many aliases lie between; each once."""
    found: list[str] = []
    for name in alias.alias_of:
        behind = _stands_for(aliases[name], aliases) if name in aliases else [name]
        found += [one for one in behind if one not in found]
    return found


def _alias(entry: AliasEntry, usable: list[PublicModel]) -> PublicModel:
    best, names = usable[0], tuple(model.name for model in usable)
    return PublicModel(
        name=entry.name,
        description=entry.description or best.description,
        note=best.note,
        owned_by=best.owned_by,
        created=best.created,
        bounds=best.bounds,
        deployments=best.deployments,
        fallbacks=(*names[1:], *best.fallbacks),
        endpoints=best.endpoints,
        stands_for=names,
        cache_ttl_s=best.cache_ttl_s,
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
            tokenizer=entry.tokenizer,
        ),
        deployments=tuple(deployments),
        fallbacks=entry.fallbacks,
        endpoints=frozenset(one for one in entry.endpoints if any(where.answers(one) for where in deployments)),
        cache_ttl_s=entry.cache_ttl_s,
    )
