"""Providers by name: what a preset fills in, what a deployment says otherwise, and which variables are missing."""

import re
from pathlib import Path
from typing import get_args

import pytest

from llm_gateway.catalog import Catalog, CatalogInvalid, Deployment
from llm_gateway.catalog_load import load_catalog
from llm_gateway.providers.presets import PRESETS, Preset, ProviderName

DEFAULT = Path("llm_gateway/models.toml")
PRICE = "price_usd_per_million_tokens = { input = 1, output = 2 }"
ENVIRONMENT = {
    "OPENAI_API_KEY": "key-openai",
    "ANTHROPIC_API_KEY": "key-anthropic",
    "GEMINI_API_KEY": "key-gemini",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "key-aws-id",
    "AWS_SECRET_ACCESS_KEY": "key-aws/secret/",
    "AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/",
    "AZURE_OPENAI_API_KEY": "key-azure",
    "MISTRAL_API_KEY": "key-mistral",
    "GROQ_API_KEY": "key-groq",
    "OPENROUTER_API_KEY": "key-openrouter",
    "VLLM_URL": "http://10.0.0.1:8000/v1",
}


@pytest.fixture
def models_file(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def load(models_file: Path, *deployments: str, endpoints: str = "", more: str = "", **environ: str) -> Catalog:
    head = f'[[models]]\nname = "a"\ncontext_window = 1000\nmax_output_tokens = 10\n{endpoints}\n'
    parts = [f'[[models.deployments]]\nmodel = "m"\n{PRICE}\n{one}\n' for one in deployments]
    models_file.write_text(head + "".join(parts) + more)
    return load_catalog(models_file, {**ENVIRONMENT, **environ})


def only(catalog: Catalog) -> Deployment:
    (found,) = catalog.find("a").deployments
    return found


def examples() -> str:
    lines = DEFAULT.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line == "# [[models]]")
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[start:])


def test_the_examples_of_the_default_file_are_valid_and_show_every_provider(models_file: Path) -> None:
    models_file.write_text(examples())
    catalog = load_catalog(models_file, ENVIRONMENT)
    assert catalog.unavailable == ()
    shown = {deployment.provider for model in catalog for deployment in model.deployments}
    assert shown == {*get_args(ProviderName)} - {"openai-compatible"}
    assert catalog.find("fast").stands_for == ("gpt-5-mini", "gemini-flash")
    assert catalog.needs_translation()


@pytest.mark.parametrize(("name", "preset"), PRESETS.items())
def test_the_default_files_table_tells_the_truth(name: str, preset: Preset) -> None:
    row = next(line for line in DEFAULT.read_text().splitlines() if line.startswith(f"# {name}  "))
    assert row.endswith("  " + (" ".join(preset.native) or "-"))
    texts = (f"${{{preset.key or ''}}}", preset.base_url or "", *preset.options.values())
    assert all(variable in row for text in texts for variable in re.findall(r"[A-Z_]{4,}", text))


@pytest.mark.parametrize(
    ("provider", "address", "headers"),
    [
        ("openai", "https://api.openai.com/v1/chat/completions", {"authorization": "Bearer key-openai"}),
        ("azure", "https://mine.openai.azure.com/openai/v1/chat/completions", {"api-key": "key-azure"}),
        ("mistral", "https://api.mistral.ai/v1/chat/completions", {"authorization": "Bearer key-mistral"}),
        ("groq", "https://api.groq.com/openai/v1/chat/completions", {"authorization": "Bearer key-groq"}),
        ("openrouter", "https://openrouter.ai/api/v1/chat/completions", {"authorization": "Bearer key-openrouter"}),
        ("ollama", "http://127.0.0.1:11434/v1/chat/completions", {}),
        ("vllm", "http://127.0.0.1:8000/v1/chat/completions", {}),
        ("llama.cpp", "http://127.0.0.1:8080/v1/chat/completions", {}),
    ],
)
def test_a_provider_that_speaks_openais_format_is_asked_as_it_is(
    provider: str, address: str, headers: dict[str, str], models_file: Path
) -> None:
    found = only(load(models_file, f'provider = "{provider}"'))
    assert found.native["chat"] == address
    assert found.headers == headers
    assert "key-" not in repr(found)


def test_anthropic_answers_its_own_format_and_is_translated_for_others(models_file: Path) -> None:
    found = only(load(models_file, 'provider = "anthropic"'))
    assert found.native == {
        "messages": "https://api.anthropic.com/v1/messages",
        "count_tokens": "https://api.anthropic.com/v1/messages/count_tokens",
    }
    assert found.translated == {"chat", "responses"}
    assert found.headers == {"x-api-key": "key-anthropic", "anthropic-version": "2023-06-01"}
    assert (found.litellm_model, found.litellm_base_url) == ("anthropic/m", "https://api.anthropic.com")


def test_bedrock_gets_its_credentials_by_name_and_only_those_that_there_are(models_file: Path) -> None:
    catalog = load(models_file, 'provider = "bedrock"\noptions = { aws_region_name = "eu-central-1" }')
    assert only(catalog).litellm_options == {
        "aws_region_name": "eu-central-1",
        "aws_access_key_id": "key-aws-id",
        "aws_secret_access_key": "key-aws/secret/",
    }
    assert set(catalog.secrets()) == {"key-aws-id", "key-aws/secret/"}


def test_azures_dated_addresses_are_used_where_a_version_is_named(models_file: Path) -> None:
    found = only(load(models_file, 'provider = "azure"\napi_version = "2024-10-21"'))
    root = "https://mine.openai.azure.com/openai/deployments/m"
    assert found.native == {"chat": f"{root}/chat/completions?api-version=2024-10-21"}
    assert "responses" in found.translated


def test_a_deployment_may_say_everything_otherwise(models_file: Path) -> None:
    text = 'provider = "groq"\nbase_url = "${HERE}/v9/"\napi_key_env = "OTHER_KEY"\nmax_output_field = "max_tokens"'
    found = only(load(models_file, text + '\nnative = ["chat"]', HERE="http://10.0.0.1", OTHER_KEY="other"))
    assert found.native == {"chat": "http://10.0.0.1/v9/chat/completions"}
    assert found.headers == {"authorization": "Bearer other"}
    assert found.max_output_field == "max_tokens"
    assert "responses" in found.translated


def test_all_missing_variables_of_a_deployment_are_named_at_once(models_file: Path) -> None:
    catalog = load(models_file, 'provider = "bedrock"', 'provider = "azure"', AWS_REGION="", AWS_ACCESS_KEY_ID="",
                   AZURE_OPENAI_ENDPOINT="", AZURE_OPENAI_API_KEY=" ")  # fmt: skip
    assert catalog.unavailable == (
        "a#1 is not available: AWS_ACCESS_KEY_ID, AWS_REGION are not set.",
        "a#2 is not available: AZURE_OPENAI_API_KEY, AZURE_OPENAI_ENDPOINT are not set.",
    )


@pytest.mark.parametrize(
    ("deployment", "sentence"),
    [
        ('provider = "grok"', "deployments[0].provider: input should be 'openai', 'anthropic', 'gemini'"),
        ('provider = "groq"\noptions = { aws_region_name = "x" }', "groq has no option aws_region_name (it has none)"),
        ('provider = "bedrock"\noptions = { region = "x" }', "bedrock has no option region (it knows aws_region_name"),
        ('provider = "groq"\napi_version = "2024-10-21"', "has an api_version, which only azure knows"),
        ('provider = "anthropic"\nbase_url = "http://x"', "its base_url must end with /v1"),
        ('native = ["chat", "images"]\nbase_url = "http://x/v1"', "deployments[0].native[1]"),
    ],
)
def test_what_does_not_fit_the_provider_is_named(deployment: str, sentence: str, models_file: Path) -> None:
    with pytest.raises(CatalogInvalid) as invalid:
        load(models_file, deployment)
    assert sentence in str(invalid.value)


def test_a_model_answers_what_it_says_and_its_providers_can(models_file: Path) -> None:
    assert load(models_file, 'provider = "openai"').find("a").endpoints == {
        "chat", "responses", "messages", "count_tokens",
    }  # fmt: skip
    both = load(models_file, 'provider = "anthropic"', endpoints='endpoints = ["chat", "embeddings"]')
    assert both.find("a").endpoints == {"chat"}
    assert only(load(models_file, 'provider = "mistral"', endpoints='endpoints = ["embeddings"]')).native.keys() == {
        "embeddings"
    }


def test_a_body_leaves_out_what_the_provider_refuses(models_file: Path) -> None:
    body = {"model": "m", "seed": 1, "stream_options": {}, "messages": []}
    assert only(load(models_file, 'provider = "mistral"')).fitted("chat", body) == {
        "model": "m",
        "random_seed": 1,
        "messages": [],
    }
    assert only(load(models_file, 'provider = "openai"')).fitted("chat", body) is body


def alias(name: str, alias_of: str) -> str:
    return f'[[aliases]]\nname = "{name}"\nalias_of = {alias_of}\n'


def second(name: str, variable: str = "OPENAI_API_KEY", fallbacks: str = "[]") -> str:
    return (
        f'[[models]]\nname = "{name}"\ncontext_window = 9\nmax_output_tokens = 9\nfallbacks = {fallbacks}\n'
        f'[[models.deployments]]\nprovider = "openai"\napi_key_env = "{variable}"\nmodel = "m"\n{PRICE}\n'
    )


def test_an_alias_is_a_model_with_the_deployments_of_what_it_stands_for(models_file: Path) -> None:
    more = second("b") + second("c", "NOBODY_SET_IT") + alias("fast", '"any"') + alias("any", '["c", "a", "b"]')
    catalog = load(models_file, 'provider = "openai"', more=more)
    fast = catalog.find("fast")
    assert fast.stands_for == ("a", "b")
    assert [one.id for one in fast.deployments] == ["a#1"]
    assert [one.name for one in catalog.with_fallbacks(fast)] == ["fast", "b"]


def test_an_alias_of_what_cannot_be_used_here_is_left_out(models_file: Path) -> None:
    more = second("c", "NOBODY_SET_IT") + alias("fast", '"c"')
    unavailable = load(models_file, 'provider = "openai"', more=more).unavailable
    assert "fast is not available: nothing that it stands for is." in unavailable


def test_cycles_are_named_also_through_aliases(models_file: Path) -> None:
    more = second("b", fallbacks='["fast"]') + alias("fast", '["a", "b"]') + alias("a", '"nowhere"') + alias("x", '"x"')
    with pytest.raises(CatalogInvalid) as invalid:
        load(models_file, 'provider = "openai"', more=more)
    for sentence in (
        "a: there are 2 models of this name",
        "b: its fallbacks lead back to itself",
        "fast: its fallbacks lead back to itself",
        "x: its fallbacks lead back to itself",
        "a: stands for nowhere, which does not exist",
    ):
        assert sentence in str(invalid.value)
