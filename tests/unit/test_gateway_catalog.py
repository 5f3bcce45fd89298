"""models.toml: what is wrong is named at once, what cannot be used here is left out and said so."""

from pathlib import Path

import pytest

from llm_gateway.catalog import Catalog, CatalogInvalid, UnknownModel
from llm_gateway.catalog_load import load_catalog
from tests.support.prices import flat_price

DEFAULT = Path("llm_gateway/models.toml")
PRICE = "price_usd_per_million_tokens = { input = 0.25, cached_input = 0.025, output = 2 }"


def model(name: str, *, fallbacks: str = "[]", deployment: str = f'base_url = "http://x/v1"\n{PRICE}') -> str:
    return f"""
[[models]]
name = "{name}"
context_window = 1000
max_output_tokens = 5000
fallbacks = {fallbacks}
[[models.deployments]]
model = "upstream"
{deployment}
"""


@pytest.fixture
def models_file(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def load(models_file: Path, text: str, **environ: str) -> Catalog:
    models_file.write_text(text)
    return load_catalog(models_file, environ)


def problems(models_file: Path, text: str, **environ: str) -> str:
    with pytest.raises(CatalogInvalid) as invalid:
        load(models_file, text, **environ)
    return str(invalid.value)


def test_the_default_file_has_a_model_that_needs_no_key_and_says_what_it_is() -> None:
    catalog = load_catalog(DEFAULT, {"BUTTRESS_LLM_URL": "http://127.0.0.1:54330/v1"})
    local = catalog.find("local/smollm2")
    assert local.deployments[0].base_url == "http://127.0.0.1:54330/v1"
    assert local.deployments[0].price == flat_price("0", "0")
    assert local.note is not None
    assert "wrong" in local.note
    assert "wrong" in local.description
    assert not catalog.needs_translation()


def test_without_the_local_model_the_default_file_is_empty_and_says_why() -> None:
    catalog = load_catalog(DEFAULT, {})
    assert list(catalog) == []
    assert "BUTTRESS_LLM_URL is not set" in catalog.unavailable[0]


def test_prices_are_exact(models_file: Path) -> None:
    price = load(models_file, model("a")).find("a").deployments[0].price
    assert price == flat_price("0.25", "2", "0.025")


def test_no_answer_is_longer_than_the_context(models_file: Path) -> None:
    assert load(models_file, model("a")).find("a").bounds.max_output_tokens == 1000


def test_a_deployment_whose_key_is_not_set_is_left_out_and_its_siblings_stay(models_file: Path) -> None:
    keyed = model("a", deployment=f'base_url = "http://x/v1"\napi_key_env = "KEY"\n{PRICE}')
    text = keyed + f'\n[[models.deployments]]\nbase_url = "http://y/v1"\nmodel = "m"\n{PRICE}\n'
    catalog = load(models_file, text, KEY=" ")
    assert [deployment.id for deployment in catalog.find("a").deployments] == ["a#2"]
    assert catalog.unavailable == ("a#1 is not available: KEY is not set.",)
    both = load(models_file, text, KEY=" secret\n").find("a").deployments
    assert both[0].api_key is not None
    assert both[0].api_key.get_secret_value() == "secret"
    assert "secret" not in repr(both)


def test_every_problem_is_named_at_once(models_file: Path) -> None:
    text = (
        model("a", fallbacks='["b", "nowhere"]')
        + model("b", fallbacks='["a"]')
        + model("twice")
        + model("twice")
        + model("no-address", deployment=PRICE)
        + model("with-password", deployment=f'base_url = "https://user:pass@x/v1"\n{PRICE}')
        + model("ftp", deployment=f'base_url = "${{WHERE}}"\n{PRICE}')
        + model("newline", deployment=f'base_url = "http://x"\napi_key_env = "KEY"\n{PRICE}')
    )
    said = problems(models_file, text, WHERE="ftp://x", KEY="two\nlines")
    for sentence in (
        "a: its fallbacks lead back to itself",
        "b: its fallbacks lead back to itself",
        "a: falls back to nowhere, which does not exist",
        "twice: there are 2 models of this name",
        "no-address#1: needs a base_url, or a provider that has one",
        "with-password#1: its base_url must have no user name",
        "ftp#1: its base_url must be an http(s) URL",
        "newline#1: KEY holds what cannot be sent",
    ):
        assert sentence in said


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ((PRICE, ""), "a#1: upstream has no price: nobody says what a token of input and of output costs"),
        (("input = 0.25, ", ""), "a#1: upstream has no price: nobody says what a token of input costs"),
        (("input = 0.25", "input = -1"), "price_usd_per_million_tokens.input"),
        (("input = 0.25", "input = nan"), "price_usd_per_million_tokens.input"),
        (("context_window = 1000", "context_window = 0"), "models[0] (a).context_window"),
        (('model = "upstream"', 'modell = "upstream"'), "models[0] (a).deployments[0].modell"),
        (('name = "a"', 'name = "a b"'), "models[0] (a b).name"),
        (('model = "upstream"', 'model = "upstream"\nprovider = "gopher"'), "deployments[0].provider"),
        (('model = "upstream"', 'model = "upstream"\nweight = 0'), "deployments[0].weight"),
    ],
)
def test_a_problem_names_its_place(change: tuple[str, str], place: str, models_file: Path) -> None:
    assert place in problems(models_file, model("a").replace(*change))


def test_a_file_that_cannot_be_read_is_a_sentence(models_file: Path) -> None:
    with pytest.raises(CatalogInvalid, match="cannot be read"):
        load_catalog(models_file, {})
    assert "not valid TOML" in problems(models_file, "[[models")


def test_fallbacks_of_fallbacks_come_once_and_nearest_first(models_file: Path) -> None:
    text = (
        model("a", fallbacks='["b", "c"]') + model("b", fallbacks='["d"]') + model("c", fallbacks='["d"]') + model("d")
    )
    catalog = load(models_file, text)
    assert [one.name for one in catalog.with_fallbacks(catalog.find("a"))] == ["a", "b", "c", "d"]


def test_an_unknown_model_is_named_shortly(models_file: Path) -> None:
    with pytest.raises(UnknownModel) as unknown:
        load(models_file, model("a")).find("x" * 1000)
    assert len(unknown.value.message) < 300
