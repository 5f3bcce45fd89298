"""OpenAI's official client is the judge of embeddings: every kind of input, both encodings, errors."""

import json
from typing import Any

import asyncpg
import openai
import pytest

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step
from tests.support.gateway_ledger import set_limits, usage_rows
from tests.support.gateway_server import INPUT_NANO_USD, GatewayServer


@pytest.mark.parametrize(
    ("given", "count"), [("hello there", 1), (["a", "b c"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)]
)
async def test_every_kind_of_input_is_embedded_and_charged_exactly(
    *,
    given: Any,  # the SDK takes a union of four
    count: int,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    async with gateway.sdk(caller) as client:
        answer = await client.embeddings.create(model="fake/chat", input=given, dimensions=8)
    assert [len(one.embedding) for one in answer.data] == [8] * count
    bill = fake_provider.bill()
    assert answer.usage.prompt_tokens == bill.input_tokens
    [row] = await usage_rows(database, caller, count=1)
    assert row["cost_nano_usd"] == bill.input_tokens * INPUT_NANO_USD
    assert (row["outcome"], row["estimated"]) == ("ok", False)
    [seen] = fake_provider.requests()
    assert json.loads(seen.body) == {
        "model": "scripted",
        "input": given,
        "dimensions": 8,
        "encoding_format": "base64",  # this client's own choice
    }


async def test_both_encodings_are_the_same_numbers(gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.sdk(caller) as client:
        packed = await client.embeddings.create(model="fake/chat", input="hello")
        plain = await client.embeddings.create(model="fake/chat", input="hello", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(packed.data[0].embedding, abs=1e-6)


async def test_a_large_batch_passes(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await set_limits(database, caller, tokens_per_minute=10**9)
    async with gateway.sdk(caller) as client:
        answer = await client.embeddings.create(model="fake/chat", input=["word"] * 2048, dimensions=256)
        assert len(answer.data) == 2048
        with pytest.raises(openai.BadRequestError) as raised:
            await client.embeddings.create(model="fake/chat", input=["word"] * 2049)
    assert (raised.value.code, raised.value.param) == ("array_above_max_length", "input")
    [row] = await usage_rows(database, caller, count=1)
    assert row["cost_nano_usd"] == 2048 * INPUT_NANO_USD


async def test_an_answer_without_usage_is_charged_by_estimate(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(usage="missing"))
    async with gateway.sdk(caller) as client:
        raw = await client.embeddings.with_raw_response.create(model="fake/chat", input="hello there, world")
    assert float(raw.headers["x-buttress-cost-usd"]) > 0
    [row] = await usage_rows(database, caller, count=1)
    assert row["estimated"]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step(status=400), openai.BadRequestError),
        (Step(status=429, retry_after_s=9, times=0), openai.RateLimitError),
        (Step(status=500, times=0), openai.InternalServerError),
        (Step(body="malformed_json"), openai.InternalServerError),
        (Step(body="empty_choices"), openai.InternalServerError),
    ],
    ids=["400", "429", "500", "malformed", "no data"],
)
async def test_the_official_client_raises_its_own_right_exception(
    step: Step, error: type[openai.APIStatusError], gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(step)
    async with gateway.sdk(caller) as client:
        with pytest.raises(error):
            await client.embeddings.create(model="fake/chat", input="hello")


@pytest.mark.parametrize("given", ["", [], [""], [[]], [{"type": "image_url"}]])
async def test_what_is_no_input_is_a_bad_request(
    given: Any,  # wrong on purpose
    gateway: GatewayServer,
    caller: Caller,
    fake_provider: FakeProvider,
) -> None:
    async with gateway.sdk(caller) as client:
        with pytest.raises(openai.BadRequestError):
            await client.embeddings.create(model="fake/chat", input=given)
    assert fake_provider.bill().counts.requests == 0
