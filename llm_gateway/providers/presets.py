"""What each provider is like, as a table: models.toml says `provider = "groq"`, and this says the rest.

`native` are the calls that the provider answers in the client's own format: their bytes pass through, which costs a
fiftieth of translating and loses nothing. All others are translated by litellm (providers/litellm.py). What a preset
says, a deployment in models.toml may say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from llm_gateway.wire.format import Endpoint

Auth = Literal["bearer", "x-api-key", "api-key"]
MaxOutputField = Literal["max_tokens", "max_completion_tokens"]
ProviderName = Literal[
    "openai", "anthropic", "gemini", "bedrock", "azure", "mistral", "groq", "openrouter", "ollama", "vllm", "llama.cpp",
    "openai-compatible",
]  # fmt: skip

_PATHS: Final[Mapping[Endpoint, str]] = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "messages": "/messages",
    "count_tokens": "/messages/count_tokens",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One provider. `${NAME}` stands for a variable that must be set, `${NAME?}` for one that may be."""

    base_url: str | None = None  # None: only the deployment can know
    key: str | None = None  # the variable with the key; None: it needs none
    auth: Auth = "bearer"
    native: tuple[Endpoint, ...] = ()
    translated_by: str  # litellm's name of it
    no_embeddings: bool = False
    max_output_field: MaxOutputField = "max_tokens"
    headers: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)  # further arguments for litellm
    # Fields of a chat completion that the provider refuses, and what it calls those that it names otherwise.
    leaves_out: frozenset[str] = frozenset()
    renames: Mapping[str, str] = field(default_factory=dict)

    def path(self, endpoint: Endpoint) -> str:
        """Where the call goes, after the base URL."""
        return _PATHS[endpoint]

    def can_translate(self, endpoint: Endpoint) -> bool:
        """True when litellm can put the call into the provider's own words."""
        return not (endpoint == "embeddings" and self.no_embeddings)


PRESETS: Final[Mapping[ProviderName, Preset]] = {
    # `max_tokens` is deprecated, and refused by its reasoning models.
    "openai": Preset(
        base_url="https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        native=("chat", "responses", "embeddings"),
        max_output_field="max_completion_tokens",
        translated_by="openai",
    ),
    "anthropic": Preset(
        base_url="https://api.anthropic.com/v1",
        key="ANTHROPIC_API_KEY",
        auth="x-api-key",
        headers={"anthropic-version": "2023-06-01"},
        native=("messages", "count_tokens"),
        no_embeddings=True,
        translated_by="anthropic",
    ),
    # Its OpenAI-compatible endpoint is no option: what the model thinks is missing from `completion_tokens` there
    # (it stands in `total_tokens` only), so a call would cost less here than there.
    "gemini": Preset(
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key="GEMINI_API_KEY",
        translated_by="gemini",
    ),
    # Signs each request with AWS's own scheme, which litellm and boto3 know. Credentials are handed over by name:
    # neither ~/.aws nor the machine's own role is looked at.
    "bedrock": Preset(
        options={
            "aws_region_name": "${AWS_REGION}",
            "aws_access_key_id": "${AWS_ACCESS_KEY_ID}",
            "aws_secret_access_key": "${AWS_SECRET_ACCESS_KEY}",
            "aws_session_token": "${AWS_SESSION_TOKEN?}",
        },
        translated_by="bedrock",
    ),
    # The v1 API (since August 2025) is OpenAI's own, with the name of the deployment as the model. With `api_version`
    # in models.toml, the older addresses are used: /openai/deployments/<model>/chat/completions?api-version=…
    "azure": Preset(
        base_url="${AZURE_OPENAI_ENDPOINT}/openai/v1",
        key="AZURE_OPENAI_API_KEY",
        auth="api-key",
        native=("chat", "responses", "embeddings"),
        max_output_field="max_completion_tokens",
        translated_by="openai",
    ),
    # Refuses every field that it does not know (422 extra_forbidden): `stream_options`, `max_completion_tokens`,
    # `user`. Streams carry usage without being asked. Source: its API reference; openai-agents-python#442.
    "mistral": Preset(
        base_url="https://api.mistral.ai/v1",
        key="MISTRAL_API_KEY",
        native=("chat", "embeddings"),
        leaves_out=frozenset(
            {"stream_options", "user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity"}
        ),
        renames={"seed": "random_seed"},
        translated_by="mistral",
    ),
    # Answers 400 to `logprobs`, `logit_bias`, `messages[].name` and `n` above 1. Source: its page on compatibility.
    "groq": Preset(
        base_url="https://api.groq.com/openai/v1",
        key="GROQ_API_KEY",
        native=("chat", "responses"),
        no_embeddings=True,
        max_output_field="max_completion_tokens",
        translated_by="groq",
    ),
    # Refuses with 402 when its own credit is used up. Keeps streams alive with comments, and ends them with an `error`
    # in a chunk. Its own fields for choosing another model (`models`, `route`, `plugins` …) are not taken from clients.
    "openrouter": Preset(
        base_url="https://openrouter.ai/api/v1",
        key="OPENROUTER_API_KEY",
        native=("chat", "responses", "embeddings", "messages"),
        translated_by="openrouter",
    ),
    # Cuts a prompt silently to its own `num_ctx` (4096 by default): set it on the server to `context_window`.
    # `responses` since 0.13.3, `messages` since 0.14.
    "ollama": Preset(
        base_url="http://127.0.0.1:11434/v1",
        native=("chat", "responses", "embeddings", "messages"),
        translated_by="openai",
    ),
    # A server with --api-key: api_key_env = "VLLM_API_KEY". `embeddings` where it serves an embedding model.
    "vllm": Preset(
        base_url="http://127.0.0.1:8000/v1",
        native=("chat", "responses", "embeddings", "messages", "count_tokens"),
        translated_by="hosted_vllm",
    ),
    # A server with --api-key: api_key_env = "LLAMA_API_KEY". `messages` since build 7187; `embeddings` where it was
    # started with --embeddings.
    "llama.cpp": Preset(
        base_url="http://127.0.0.1:8080/v1",
        native=("chat", "embeddings", "messages"),
        translated_by="openai",
    ),
    "openai-compatible": Preset(native=("chat", "embeddings"), translated_by="openai"),
}
