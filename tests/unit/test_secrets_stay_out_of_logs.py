"""Whatever secret a service was started with, no log line of its process shows it, wherever it turns up."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from api.app import create_app as create_api
from core.logging import configure_logging, get_logger
from core.settings import load_settings
from llm_gateway.app import create_app as create_gateway_alone

# Shaped like nothing that redaction would know by its looks.
CANARIES = {
    "BUTTRESS_SUPABASE_SECRET_KEY": "canary.supabase.{0}",
    "BUTTRESS_JWT_SECRET": "canary.jwt.secret.of.thirty.two.characters.{0}",
    "BUTTRESS_GATEWAY_DATABASE_URL": "postgresql://gateway_service:canary.database%40{0}@127.0.0.1:1/postgres",
    "BUTTRESS_KEY_PEPPER": "canary.pepper.of.thirty.two.characters.or.more.{0}",
    "BUTTRESS_KEY_PEPPERS_ACCEPTED": "canary.pepper.before.that.of.thirty.two.characters.{0}",
    "CANARY_PROVIDER_KEY": "canary.provider.{0}",
}
MODELS = """
[[models]]
name = "fake/chat"
context_window = 8
max_output_tokens = 8
[[models.deployments]]
base_url = "http://127.0.0.1:1"
api_key_env = "CANARY_PROVIDER_KEY"
model = "scripted"
price_usd_per_million_tokens = { input = 0, output = 0 }
"""


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("service", ["api", "gateway"])
def test_a_service_knows_its_secrets_and_writes_none_down(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models.toml"
    models.write_text(MODELS)
    secrets = {name: value.format(service) for name, value in CANARIES.items()}
    monkeypatch.setenv("CANARY_PROVIDER_KEY", secrets["CANARY_PROVIDER_KEY"])
    settings = load_settings(
        {
            **secrets,
            "BUTTRESS_SUPABASE_URL": "http://127.0.0.1:1",
            "BUTTRESS_SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x",
            "BUTTRESS_MODELS_FILE": str(models),
        }
    )
    (create_api if service == "api" else create_gateway_alone)(settings)
    stream = io.BytesIO()
    configure_logging("INFO", stream=stream)
    for secret in (*secrets.values(), f"canary.database@{service}"):
        get_logger("test").info("told", text=f"the other side said <{secret}>", deep=[{"x": secret}])
    written = stream.getvalue().decode()
    assert written.count("told") == len(secrets) + 1
    assert "canary." not in written
