"""Bodies that nobody means: each address answers them, or says in its vendor's shape what is wrong with them."""

import random
from typing import Any

import asyncpg
import httpx
import orjson
import pytest

from tests.support.callers import Caller, new_caller
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_ledger import none_held, set_limits
from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack

SEED = 20261121
ASK: dict[str, dict[str, Any]] = {
    "/chat/completions": {"model": "fake/chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
    "/responses": {"model": "fake/chat", "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 5},
    "/embeddings": {"model": "fake/chat", "input": ["hi", "ho"]},
    "/messages": {"model": "fake/claude", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
}
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, 2**63 - 1, "", "x", "😀" * 50, "Infinity", [], [[]], {}, {"type": "x"}, {"type": {}},
    {"type": ["text"]}, {"type": "image", "source": {"type": ["url"]}}, {"type": "document", "source": {"type": {}}},
    {"type": "input_audio", "input_audio": {"data": "A", "format": ["wav"]}}, {"type": "tool_result", "content": [[]]},
    [None], [{"type": "item_reference"}], [{"role": "user"}], {"id": "x"}, [[[[1]]]], ["fake/chat"], "x" * 70_000,
]  # fmt: skip
FIELDS = [
    "model", "messages", "input", "stream", "n", "tools", "tool_choice", "max_tokens", "max_output_tokens", "store",
    "stream_options", "reasoning", "text", "instructions", "response_format", "prediction", "modalities", "metadata",
    "include", "service_tier", "dimensions", "encoding_format", "user", "logprobs", "stop", "temperature", "Model",
]  # fmt: skip
RAW = [
    b"", b"null", b"[]", b'"x"', b"{", b'{"model":}', b"\xff\xfe", b"[" * 5000, b'{"a":' * 2000, b'{"model": NaN}',
    b'{"model": "fake/chat", "model": "fake/chat"}', b'{"model": "\\ud800"}', b'{"model": "\\u0000"}',
    b'{"model": 123456789012345678901234567890}', b"[" + b"0," * 600_000 + b"0]", b"\xef\xbb\xbf{}",
]  # fmt: skip


@pytest.fixture
async def caller(stack: RunningStack, database: asyncpg.Connection, fake_provider: FakeProvider) -> Caller:
    fake_provider.reset()
    rich = await new_caller(stack, database)
    await set_limits(database, rich, requests_per_minute=10**6, tokens_per_minute=10**9, calls_in_flight=100)
    return rich


def mutated(body: Any, chance: random.Random) -> Any:  # JSON
    """The body with something in it replaced, added or spelled otherwise."""
    body = orjson.loads(orjson.dumps(body))
    place: Any = body
    while isinstance(place, dict | list) and place and chance.random() < 0.7:
        inner = chance.choice(list(place.values()) if isinstance(place, dict) else place)
        if not isinstance(inner, dict | list):
            break
        place = inner
    odd = chance.choice(ODD)
    if isinstance(place, list):
        place.insert(0, odd)
    elif chance.random() < 0.5 and place:
        place[chance.choice(list(place))] = odd
    else:
        place[chance.choice(FIELDS)] = odd
    return body


def judge(response: httpx.Response, *statuses: int) -> None:
    """It has one of these statuses; as an error, in its vendor's shape."""
    assert response.status_code in statuses, (response.request.content[:300], response.text[:300])
    if response.status_code != 200:
        error = response.json()["error"]
        anthropic = response.request.url.path.endswith("/messages")
        assert error.keys() >= ({"type", "message"} if anthropic else {"message", "type", "param", "code"})
        assert len(response.content) < 2000


async def test_a_type_that_is_no_text_is_the_callers_mistake(gateway: GatewayServer, caller: Caller) -> None:
    kinds: list[Any] = [["custom"], {"type": "text"}, 1]
    async with gateway.http(caller) as client:
        for kind in kinds:
            for path, ask in ASK.items():
                for field in ("tools", "messages", "input", "system"):
                    judge(await client.post(path, json={**ask, field: [{"type": kind}]}), 200, 400)


@pytest.mark.parametrize("path", ASK)
async def test_odd_bodies_are_answered_or_the_callers_mistake(
    path: str, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    chance = random.Random(f"{SEED}{path}")
    async with gateway.http(caller) as client:
        for _ in range(150):
            body = ASK[path]
            for _ in range(chance.choice((1, 1, 2, 3))):
                body = mutated(body, chance)
            response = await client.post(path, content=orjson.dumps(body), headers={"content-type": "application/json"})
            judge(response, 200, 400, 404, 413, 422)
    assert gateway.log_lines("gateway_fault") == []
    await none_held(database, caller)


@pytest.mark.parametrize("path", ASK)
async def test_what_is_no_json_is_the_callers_mistake(path: str, gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.http(caller) as client:
        for raw in RAW:
            response = await client.post(path, content=raw, headers={"content-type": "application/json"})
            judge(response, 400, 413)
    assert gateway.log_lines("gateway_fault") == []
