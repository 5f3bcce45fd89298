"""The configuration of both services: environment variables, read once at start, never again.

Every variable stands in `.env.example` with its meaning. A wrong or missing one stops the process at start, and all of
them are named in one message; nothing is discovered missing while serving.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

PREFIX: Final = "BUTTRESS_"

# Every secret that the embedded stack makes contains this, so that no production process ever runs on one of them.
EMBEDDED_MARKER: Final = "embedded_"

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class SettingsInvalid(Exception):
    """The environment does not describe a runnable service; `problems` names every missing or wrong variable."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"The configuration is not complete (see .env.example):\n{lines}")


class Settings(BaseModel):
    """A complete and consistent configuration. Made by `load_settings` only, which checks what spans fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    env: Literal["development", "test", "production"] = "development"
    supabase_url: str
    supabase_publishable_key: SecretStr
    supabase_secret_key: SecretStr | None = None
    supabase_deadline_s: Annotated[float, Field(ge=0.2, le=30)] = 1.0
    jwt_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    jwks_url: str | None = None
    jwt_issuer: str = ""
    jwt_audience: Annotated[str, Field(min_length=1)] = "authenticated"
    gateway_database_url: SecretStr
    database_deadline_s: Annotated[float, Field(ge=0.2, le=30)] = 0.95
    key_pepper: Annotated[SecretStr, Field(min_length=32)]
    key_peppers_accepted: tuple[Annotated[SecretStr, Field(min_length=32)], ...] = ()
    models_file: Path = Path("llm_gateway/models.toml")
    llm_url: str | None = None
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_token: Annotated[SecretStr, Field(min_length=16)] | None = None
    otel: bool = False
    content_hooks: tuple[str, ...] = ()
    allow_plain_http: bool = False
    max_body_bytes: Annotated[int, Field(ge=1024, le=1024**3)] = 10 * 1024 * 1024
    max_json_depth: Annotated[int, Field(ge=1, le=500)] = 64

    @property
    def is_production(self) -> bool:
        return self.env == "production"

    def secrets(self) -> tuple[str, ...]:
        """Every secret value in here, and the database's password also as it is outside of its URL."""
        alone = [value for _, value in self if isinstance(value, SecretStr)]
        values = [value.get_secret_value() for value in (*alone, *self.key_peppers_accepted)]
        password = urlsplit(self.gateway_database_url.get_secret_value()).password or ""
        return (*values, password, unquote(password))

    @field_validator("supabase_url", "jwks_url", "llm_url", mode="after")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        if not value:
            return value
        url = _split(value)
        if (
            url is None
            or url.scheme not in {"http", "https"}
            or not url.hostname
            or url.username
            or url.query
            or url.fragment
        ):
            raise ValueError("must be an http(s) URL without user name, query or fragment")
        return value.rstrip("/")

    @field_validator("gateway_database_url", mode="after")
    @classmethod
    def _is_postgres_url(cls, value: SecretStr) -> SecretStr:
        url = _split(value.get_secret_value())
        if url is None or url.scheme not in {"postgres", "postgresql"} or not url.hostname or not url.username:
            raise ValueError("must be a URL like postgresql://user:password@host:5432/database")
        return value

    @field_validator("key_peppers_accepted", "cors_origins", "trusted_proxies", "content_hooks", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(entry.strip() for entry in value.split(",") if entry.strip())
        return value

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            url = _split(origin)
            if url is None or url.scheme not in {"http", "https"} or not url.hostname or origin != _origin_of(url):
                raise ValueError(f"{origin!r} is not an origin like https://app.example.com (no path, no `*`)")
        return value


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings that the environment describes.

    An empty variable counts as not set. Raises: SettingsInvalid, naming every missing or wrong variable at once.
    """
    source = os.environ if environ is None else environ
    values = {
        name: source[PREFIX + name.upper()]
        for name in Settings.model_fields
        if source.get(PREFIX + name.upper(), "").strip()
    }
    if "supabase_url" in values:
        values.setdefault("jwt_issuer", values["supabase_url"].rstrip("/") + "/auth/v1")
    problems = _conflicts(values)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{PREFIX}{str(e['loc'][0]).upper()}: {_sentence(e['type'], e['msg'])}" for e in error.errors()
        ] + problems
        raise SettingsInvalid(problems) from None
    if settings.otel and not _has_opentelemetry():
        problems.append(f"{PREFIX}OTEL: is on, and its library is not installed: pip install 'buttress[otel]'.")
    if problems:
        raise SettingsInvalid(problems)
    return settings


def _has_opentelemetry() -> bool:
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def _sentence(kind: str, message: str) -> str:
    return "is missing." if kind == "missing" else f"{message.removeprefix('Value error, ')}."


def _conflicts(values: Mapping[str, str]) -> list[str]:
    """What is wrong between the variables, whether or not each of them is right by itself."""
    problems = []
    if ("jwt_secret" in values) == ("jwks_url" in values):
        problems.append(
            "BUTTRESS_JWKS_URL or BUTTRESS_JWT_SECRET: set exactly one. JWKS for a project with signing keys "
            "(<supabase_url>/auth/v1/.well-known/jwks.json), the secret for the embedded stack and legacy projects."
        )
    if values.get("env") == "production":
        problems += _production_conflicts(values)
    return problems


def _production_conflicts(values: Mapping[str, str]) -> list[str]:
    problems = []
    secrets = (
        "supabase_publishable_key",
        "supabase_secret_key",
        "jwt_secret",
        "gateway_database_url",
        "key_pepper",
        "key_peppers_accepted",
    )
    problems += [
        f"{PREFIX}{name.upper()}: is a secret of the embedded development stack; production must not run on it."
        for name in secrets
        if EMBEDDED_MARKER in values.get(name, "")
    ]
    if values.get("allow_plain_http", "").lower() not in {"1", "true", "yes", "on"}:
        problems += [
            f"{PREFIX}{name.upper()}: must be https in production, or tokens travel in the clear. Where the network "
            "between the two is private, say so with BUTTRESS_ALLOW_PLAIN_HTTP=true."
            for name in ("supabase_url", "jwks_url")
            if values.get(name, "").startswith("http:")
        ]
    return problems


def _split(value: str) -> SplitResult | None:
    try:
        url = urlsplit(value)
        _ = url.port  # raises for a port that is none
    except ValueError:
        return None
    return url


def _origin_of(url: SplitResult) -> str:
    return f"{url.scheme}://{url.netloc}"
