"""The list of models, judged by both vendors' official clients."""

import anthropic
import asyncpg
import httpx
import openai
import pytest

from tests.support.api_keys import new_key
from tests.support.callers import Caller
from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack


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


async def test_a_key_of_narrow_scope_sees_and_uses_only_what_is_in_it(
    gateway: GatewayServer, stack: RunningStack, caller: Caller, database: asyncpg.Connection
) -> None:
    key = await new_key(stack, database, caller, models=["fake/chat"], endpoints=["responses", "models"])
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key.secret, max_retries=2) as client:
        assert [model.id async for model in client.models.list()] == ["fake/chat"]
        assert (await client.responses.create(model="fake/chat", input="Hi.")).status == "completed"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("fake/claude")
        with pytest.raises(openai.PermissionDeniedError) as model:
            await client.responses.create(model="fake/claude", input="Hi.")
        with pytest.raises(openai.PermissionDeniedError) as endpoint:
            await client.embeddings.create(model="fake/chat", input="Hi.")
    assert (model.value.code, model.value.param) == ("model_not_allowed", "model")
    assert endpoint.value.code == "endpoint_not_allowed"


async def test_a_key_that_may_not_list_models_is_told_so(
    gateway: GatewayServer, stack: RunningStack, caller: Caller, database: asyncpg.Connection
) -> None:
    key = await new_key(stack, database, caller, endpoints=["chat"])
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key.secret) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.models.list()


@pytest.mark.parametrize("path", ["/models", "/models/fake/chat"])
async def test_nobody_lists_models_without_a_credential(path: str, gateway: GatewayServer) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=30) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers={"anthropic-version": "2023-06-01"})).status_code == 401
