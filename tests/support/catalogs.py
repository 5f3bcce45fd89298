"""Catalogues of a test's own, in the words of models.toml."""

from collections.abc import Mapping
from pathlib import Path

from llm_gateway.catalog import Catalog
from llm_gateway.catalog_load import load_catalog


def catalog_of(folder: Path, models_toml: str, environ: Mapping[str, str] | None = None) -> Catalog:
    """What a gateway knows that was started with this file, in an environment of these variables alone."""
    file = folder / "models.toml"
    file.write_text(models_toml)
    return load_catalog(file, environ or {})
