"""The gateway within the test's own process, without a server around it: for what only its memory shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from core.settings import load_settings
from llm_gateway import Gateway, create_gateway
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_server import MODELS_TOML, PROVIDER_KEY
from tests.support.pools import PATIENCE_S
from tests.support.stack import RunningStack


@dataclass(frozen=True)
class Answered:
    """What the client got: no status where it left before there was one."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes


@asynccontextmanager
async def gateway_within(
    stack: RunningStack,
    provider: FakeProvider,
    folder: Path,
    *,
    database_url: str | None = None,
    database_deadline_s: float = PATIENCE_S,
    models_toml: str = MODELS_TOML,
) -> AsyncIterator[Gateway]:
    """A gateway that serves inside the block."""
    models_file = folder / "models.toml"
    models_file.write_text(models_toml.format(url=provider.url, refused_url=provider.refused_url))
    environment = {
        **stack.environment(database_deadline_s=database_deadline_s),
        "BUTTRESS_MODELS_FILE": str(models_file),
    }
    if database_url is not None:
        environment["BUTTRESS_GATEWAY_DATABASE_URL"] = database_url
    gateway = create_gateway(load_settings(environment), environ={"FAKE_PROVIDER_KEY": PROVIDER_KEY})
    async with gateway.lifespan():
        yield gateway


async def ask_within(
    gateway: Gateway,
    headers: Mapping[str, str],
    path: str,
    body: Mapping[str, object],
    *,
    leaves: bool = False,
    stuck_until: asyncio.Event | None = None,
    done: asyncio.Event | None = None,
) -> Answered:
    """One POST below /llm. A client that `leaves` is gone as soon as the first piece of its answer has come.

    With `stuck_until` it accepts no more than that piece, and is gone once that is set. `done` is set when the last
    event of a chat completion has come.
    """
    sent: list[dict[str, Any]] = [{"type": "http.request", "body": orjson.dumps(body), "more_body": False}]
    gone = asyncio.Event()
    got: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        got.append(message)
        if done is not None and b"[DONE]" in message.get("body", b""):
            done.set()
        if stuck_until is not None and message.get("body"):
            await stuck_until.wait()
            gone.set()
            await asyncio.Event().wait()
        elif leaves and message.get("body"):
            gone.set()
            await asyncio.sleep(0)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/llm/v1{path}",
        "headers": [(b"content-type", b"application/json"), *raw],
        "state": {},
    }
    await gateway.serve(scope, receive, send)
    gone.set()
    start = got[0] if got else {"headers": []}
    return Answered(
        start.get("status"),
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in got[1:]),
    )
