"""The list of models, judged by both vendors' official clients."""

import anthropic
import asyncpg
import httpx
import openai
import pytest

from tests.support.callers import Caller, new_caller
from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack


@pytest.fixture
async def caller(stack: RunningStack, database: asyncpg.Connection) -> Caller:
    return await new_caller(stack, database)


async def test_openais_client_lists_and_finds_what_can_be_used(gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.sdk(caller) as client:
        names = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("fake/chat")
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.models.retrieve("fake/without-key")
    assert {"fake/chat", "fake/claude"} <= set(names)
    assert "fake/without-key" not in names
    assert (one.id, one.object, one.owned_by) == ("fake/chat", "model", "buttress")
    assert unknown.value.code == "model_not_found"


async def test_anthropics_client_turns_its_pages(gateway: GatewayServer, caller: Caller) -> None:
    async with anthropic.AsyncAnthropic(base_url=f"{gateway.url}/llm", api_key=caller.access_token) as client:
        names = [model.id async for model in client.models.list(limit=2)]
        first = await client.models.list(limit=2)
        one = await client.models.retrieve("fake/claude")
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("fake/without-key")
        with pytest.raises(anthropic.BadRequestError):
            await client.models.list(limit=0)
    assert len(first.data) == 2
    assert first.has_more
    assert len(names) == len(set(names)) > 2
    assert (one.type, one.id, one.max_tokens, one.lifecycle) == ("model", "fake/claude", 256, "active")


@pytest.mark.parametrize("path", ["/models", "/models/fake/chat"])
async def test_nobody_lists_models_without_a_credential(path: str, gateway: GatewayServer) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers={"anthropic-version": "2023-06-01"})).status_code == 401
