"""The configuration is complete and consistent, or the process says at once everything that is wrong with it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.settings import PREFIX, Settings, SettingsInvalid, load_settings
from llm_gateway.times import Times

REQUIRED = {
    "BUTTRESS_SUPABASE_URL": "http://127.0.0.1:54321",
    "BUTTRESS_SUPABASE_PUBLISHABLE_KEY": "sb_publishable_abc",
    "BUTTRESS_JWT_SECRET": "s3cret-" * 6,
    "BUTTRESS_GATEWAY_DATABASE_URL": "postgresql://gateway_service:s3cret-pw@127.0.0.1:54322/postgres",
    "BUTTRESS_KEY_PEPPER": "s3cret-pepper-" * 3,
}
# Read by the gateway's own process, not by `Settings`: llm_gateway/__main__.py and times.py.
PROCESS_DEFAULTS = {
    "BUTTRESS_GATEWAY_HOST": "127.0.0.1",
    "BUTTRESS_GATEWAY_PORT": "8001",
    "BUTTRESS_GATEWAY_WORKERS": "1",
    "BUTTRESS_GATEWAY_GRACE_S": str(Times().grace),
    "BUTTRESS_GATEWAY_LAME_DUCK_S": str(Times().lame_duck),
    "BUTTRESS_GATEWAY_LEASE_S": str(Times().lease),
}
PRODUCTION = {
    "BUTTRESS_ENV": "production",
    "BUTTRESS_SUPABASE_URL": "https://ref.supabase.co",
    "BUTTRESS_SUPABASE_PUBLISHABLE_KEY": "sb_publishable_abc",
    "BUTTRESS_JWKS_URL": "https://ref.supabase.co/auth/v1/.well-known/jwks.json",
    "BUTTRESS_GATEWAY_DATABASE_URL": "postgresql://gateway_service:pw@db.ref.supabase.co:5432/postgres",
    "BUTTRESS_KEY_PEPPER": "0123456789abcdef" * 4,
}


def problems_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsInvalid) as invalid:
        load_settings(environ)
    return invalid.value.problems


def test_the_required_variables_are_enough() -> None:
    settings = load_settings(REQUIRED)
    assert settings.env == "development"
    assert settings.jwt_issuer == "http://127.0.0.1:54321/auth/v1"
    assert settings.jwt_audience == "authenticated"
    assert settings.models_file == Path("llm_gateway/models.toml")
    assert settings.cors_origins == ()
    assert not settings.is_production


def test_every_missing_variable_is_named_in_one_message() -> None:
    problems = problems_of({})
    for name in ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "GATEWAY_DATABASE_URL", "KEY_PEPPER"):
        assert f"{PREFIX}{name}: is missing." in problems
    assert any("BUTTRESS_JWKS_URL or BUTTRESS_JWT_SECRET: set exactly one" in problem for problem in problems)
    assert len(problems) == 5
    with pytest.raises(SettingsInvalid, match=r"(?s)not complete.*SUPABASE_URL.*JWT_SECRET"):
        load_settings({})


def test_missing_wrong_and_conflicting_variables_are_named_together() -> None:
    problems = problems_of(
        {**PRODUCTION, "BUTTRESS_ENV": "production", "BUTTRESS_LOG_LEVEL": "LOUD", "BUTTRESS_OTEL": "perhaps"}
    )
    assert [problem.partition(":")[0] for problem in problems] == ["BUTTRESS_LOG_LEVEL", "BUTTRESS_OTEL"]


def test_telemetry_without_its_library_is_named_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.sdk", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)  # as Python knows a package that is not there
    (problem,) = problems_of({**REQUIRED, "BUTTRESS_OTEL": "on"})
    assert problem == "BUTTRESS_OTEL: is on, and its library is not installed: pip install 'buttress[otel]'."


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load_settings({**REQUIRED, "BUTTRESS_JWKS_URL": "", "BUTTRESS_LOG_LEVEL": " "}).log_level == "INFO"


def test_variables_of_others_do_not_matter() -> None:
    load_settings({**REQUIRED, "BUTTRESS_PORT": "8000", "SUPABASE_URL": "x", "PATH": "/bin"})


def test_the_environment_of_the_process_is_what_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_text("BUTTRESS_LOG_LEVEL=ERROR\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().log_level == "INFO"  # no file is read


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings(REQUIRED).env = "production"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ENV", "staging", "'development', 'test' or 'production'"),
        ("SUPABASE_URL", "localhost:54321", "http"),
        ("SUPABASE_URL", "ftp://localhost", "http"),
        ("SUPABASE_URL", "http://", "http"),
        ("SUPABASE_URL", "http://localhost:99999", "http"),
        ("SUPABASE_URL", "http://user:pw@localhost", "user name"),
        ("SUPABASE_URL", "http://localhost/?a=b", "query"),
        ("JWT_SECRET", "short", "32"),
        ("KEY_PEPPER", "short", "32"),
        ("KEY_PEPPERS_ACCEPTED", "s3cret-old-pepper-of-thirty-two-characters,short", "32"),
        ("GATEWAY_DATABASE_URL", "host=localhost", "postgresql://"),
        ("GATEWAY_DATABASE_URL", "mysql://u:p@h/d", "postgresql://"),
        ("GATEWAY_DATABASE_URL", "postgresql://localhost/db", "user"),
        ("CORS_ORIGINS", "*", "origin"),
        ("CORS_ORIGINS", "null", "origin"),
        ("CORS_ORIGINS", "https://a.example,https://b.example/path", "https://b.example/path"),
        ("CORS_ORIGINS", "https://a.example/", "origin"),
        ("MAX_BODY_BYTES", "ten", "integer"),
        ("MAX_BODY_BYTES", "1", "1024"),
        ("MAX_JSON_DEPTH", "1000", "500"),
        ("DATABASE_DEADLINE_S", "0.1", "0.2"),
        ("DATABASE_DEADLINE_S", "31", "30"),
        ("SUPABASE_DEADLINE_S", "0.1", "0.2"),
        ("SUPABASE_DEADLINE_S", "31", "30"),
        ("ALLOW_PLAIN_HTTP", "perhaps", "boolean"),
    ],
)
def test_a_wrong_value_is_named_and_explained(name: str, value: str, says: str) -> None:
    (problem,) = problems_of({**REQUIRED, PREFIX + name: value})
    assert problem.startswith(f"{PREFIX}{name}: ")
    assert says in problem


def test_no_secret_is_shown_in_messages_or_representations() -> None:
    settings = load_settings({**REQUIRED, "BUTTRESS_KEY_PEPPERS_ACCEPTED": "s3cret-old-" * 3})
    shown = f"{settings!r} {settings} {settings.model_dump_json()}"
    with pytest.raises(SettingsInvalid) as invalid:
        load_settings(
            {**REQUIRED, "BUTTRESS_JWT_SECRET": "hunter2", "BUTTRESS_GATEWAY_DATABASE_URL": "mysql://u:hunter2@h/d"}
        )
    assert "hunter2" not in str(invalid.value)
    assert "s3cret" not in shown


def test_both_ways_to_check_tokens_are_one_too_many() -> None:
    (problem,) = problems_of({**REQUIRED, "BUTTRESS_JWKS_URL": "http://127.0.0.1:54321/jwks.json"})
    assert "set exactly one" in problem


def test_urls_lose_their_last_slash_and_lists_their_spaces() -> None:
    settings = load_settings(
        {
            **REQUIRED,
            "BUTTRESS_SUPABASE_URL": "https://ref.supabase.co/",
            "BUTTRESS_CORS_ORIGINS": " https://a.example , http://localhost:5173,",
        }
    )
    assert settings.supabase_url == "https://ref.supabase.co"
    assert settings.jwt_issuer == "https://ref.supabase.co/auth/v1"
    assert settings.cors_origins == ("https://a.example", "http://localhost:5173")


def test_production_runs_on_a_hosted_project() -> None:
    assert load_settings(PRODUCTION).is_production


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SUPABASE_PUBLISHABLE_KEY", "sb_publishable_embedded_0011"),
        ("SUPABASE_SECRET_KEY", "sb_secret_embedded_0011"),
        ("GATEWAY_DATABASE_URL", "postgresql://gateway_service:embedded_0011@db.example.com/postgres"),
        ("KEY_PEPPER", "embedded_" + "0" * 64),
        ("KEY_PEPPERS_ACCEPTED", "0" * 64 + ",embedded_" + "0" * 64),
    ],
)
def test_production_refuses_secrets_of_the_embedded_stack(name: str, value: str) -> None:
    (problem,) = problems_of({**PRODUCTION, PREFIX + name: value})
    assert problem.startswith(f"{PREFIX}{name}: is a secret of the embedded development stack")


def test_production_refuses_the_embedded_jwt_secret() -> None:
    environ = {**PRODUCTION, "BUTTRESS_JWKS_URL": "", "BUTTRESS_JWT_SECRET": "embedded_" + "0" * 64}
    (problem,) = problems_of(environ)
    assert problem.startswith("BUTTRESS_JWT_SECRET: is a secret of the embedded")


@pytest.mark.parametrize("host", ["kong:8000", "127.0.0.1:54321", "ref.supabase.co"])
def test_production_speaks_tls_to_supabase_unless_the_network_is_private(host: str) -> None:
    environ = {
        **PRODUCTION,
        "BUTTRESS_SUPABASE_URL": f"http://{host}",
        "BUTTRESS_JWKS_URL": f"http://{host}/auth/v1/.well-known/jwks.json",
    }
    assert [problem.partition(":")[0] for problem in problems_of(environ)] == [
        "BUTTRESS_SUPABASE_URL",
        "BUTTRESS_JWKS_URL",
    ]
    load_settings({**environ, "BUTTRESS_ALLOW_PLAIN_HTTP": "true"})


def test_the_example_file_documents_exactly_the_variables_that_are_read() -> None:
    text = (Path(__file__).parents[2] / ".env.example").read_text()
    documented = dict(re.findall(r"^(?:# )?(BUTTRESS_[A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert set(documented) == {PREFIX + name.upper() for name in Settings.model_fields} | set(PROCESS_DEFAULTS)
    required = set(re.findall(r"^(BUTTRESS_[A-Z_]+)=", text, re.MULTILINE))
    assert required == {PREFIX + name.upper() for name, field in Settings.model_fields.items() if field.is_required()}


def test_the_example_file_shows_the_real_defaults() -> None:
    text = (Path(__file__).parents[2] / ".env.example").read_text()
    documented = dict(re.findall(r"^# (BUTTRESS_[A-Z_]+)=(.+)$", text, re.MULTILINE))
    settings = load_settings(REQUIRED)
    for name, value in documented.items():
        if name in PROCESS_DEFAULTS:
            assert value == PROCESS_DEFAULTS[name]
            continue
        default = getattr(settings, name.removeprefix(PREFIX).lower())
        assert str(default).lower() == value.lower(), name
