"""A translating provider over a catalogue written for one test, asked directly and without a gateway around it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from core.provider_http import ProviderHttp
from llm_gateway.catalog import Catalog
from llm_gateway.catalog_load import load_catalog
from llm_gateway.providers.contract import ProviderAnswer, ProviderCall, Providers
from llm_gateway.providers.litellm import LitellmProvider
from llm_gateway.providers.native import NativeProvider
from llm_gateway.settlement import DetachedTasks
from llm_gateway.wire.format import Endpoint

ENVIRONMENT = {
    "OPENAI_API_KEY": "key-openai",
    "ANTHROPIC_API_KEY": "key-anthropic",
    "GEMINI_API_KEY": "key-gemini",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "key-aws-secret",
    "AWS_SESSION_TOKEN": "key-aws-session",
    "AZURE_OPENAI_API_KEY": "key-azure",
    "MISTRAL_API_KEY": "key-mistral",
    "GROQ_API_KEY": "key-groq",
    "OPENROUTER_API_KEY": "key-openrouter",
}
_ALL = 'endpoints = ["chat", "responses", "embeddings", "messages", "count_tokens"]'


def catalog_of(folder: Path, deployments: Mapping[str, str]) -> Catalog:
    """A catalogue with one model a name, whose only deployment says this beside its price."""
    text = "".join(
        f'[[models]]\nname = "{name}"\ncontext_window = 100000\nmax_output_tokens = 1000\n{_ALL}\n'
        f"[[models.deployments]]\n{lines}\nprice_usd_per_million_tokens = {{ input = 1, output = 2 }}\n"
        for name, lines in deployments.items()
    )
    file = folder / "models.toml"
    file.write_text(text)
    return load_catalog(file, ENVIRONMENT)


@dataclass(frozen=True)
class Asked:
    """An answer as it came: its pieces, and what they hold."""

    pieces: tuple[bytes, ...]

    @property
    def body(self) -> Any:  # Any: JSON
        return orjson.loads(b"".join(self.pieces))

    @property
    def events(self) -> list[Any]:  # Any: JSON
        """The data of each event but [DONE]."""
        lines = b"".join(self.pieces).splitlines()
        return [orjson.loads(line[6:]) for line in lines if line.startswith(b"data: {")]


@dataclass(frozen=True)
class Asker:
    """Asks the one deployment of a model, translating where it must."""

    catalog: Catalog
    providers: Providers

    async def ask(self, model: str, endpoint: Endpoint, body: Mapping[str, object]) -> Asked:
        """The whole answer. Raises: ProviderFailure."""
        answer = await self.begin(model, endpoint, body)
        pieces = []
        while piece := await answer.read():
            pieces.append(piece)
        return Asked(tuple(pieces))

    async def begin(self, model: str, endpoint: Endpoint, body: Mapping[str, object]) -> ProviderAnswer:
        """The answer, from its status 200 on. Raises: ProviderFailure."""
        deployment = self.catalog.find(model).deployments[0]
        call = ProviderCall(
            deployment=deployment,
            endpoint=endpoint,
            body={**body, "model": deployment.model},
            stream=bool(body.get("stream")),
            call_id="call-1",
        )
        return await self.providers.of(deployment, endpoint).open(call)


@asynccontextmanager
async def asker_of(catalog: Catalog) -> AsyncIterator[Asker]:
    """An asker over this catalogue; its connections end with it."""
    http = ProviderHttp()
    native = NativeProvider(http)
    tasks = DetachedTasks()
    translating = LitellmProvider(native, tasks)
    try:
        yield Asker(catalog, Providers(native=native, translating=translating, counting=native))
    finally:
        await tasks.drain(5)
        await translating.aclose()
        http.close()
