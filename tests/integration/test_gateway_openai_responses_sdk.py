"""OpenAI's official client is the judge of responses: whole, streamed, tools, structure, pictures, errors."""

import json
from typing import Any

import asyncpg
import openai
import pytest
from pydantic import BaseModel

from tests.support.callers import Caller
from tests.support.fake_provider import FakeProvider, Step, ToolCall
from tests.support.gateway_ledger import usage_rows
from tests.support.gateway_server import INPUT_NANO_USD, OUTPUT_NANO_USD, PROVIDER_KEY, GatewayServer

ASK = "What is the weather in Basel?"
WEATHER: Any = {  # the SDK's own types are unions of typed dictionaries
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
BOTH_PROTOCOLS = pytest.mark.parametrize("model", ["fake/chat", "fake/claude"])
BOTH_CITIES = (
    ToolCall(name="get_weather", arguments='{"city": "Basel"}'),
    ToolCall(name="get_weather", arguments='{"city": "Zürich"}'),
)


class Forecast(BaseModel):
    city: str
    sunny: bool


def billed(fake_provider: FakeProvider) -> int:
    """What the provider's own bill costs at the catalogue's price, nano-dollars."""
    bill = fake_provider.bill()
    return bill.input_tokens * INPUT_NANO_USD + bill.output_tokens * OUTPUT_NANO_USD


async def note_kinds(opened: Any, kinds: list[str]) -> None:  # Any: the SDK's stream of a union
    """`kinds` has the type of each event that came, also when the stream breaks off."""
    async for event in opened:
        kinds.append(event.type)  # noqa: PERF401 -- a list made at once would be lost with the stream


async def test_a_response_is_whole_and_charged_exactly(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text="It is sunny in Basel.", reasoning_text="Let me think."))
    async with gateway.sdk(caller) as client:
        answer = await client.responses.create(model="fake/chat", input=ASK, instructions="Be brief.", store=True)
    assert answer.output_text == "It is sunny in Basel."
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 3
    [row] = await usage_rows(database, caller, count=1)
    assert (row["cost_nano_usd"], row["outcome"], row["estimated"]) == (billed(fake_provider), "ok", False)
    [seen] = fake_provider.requests()
    assert json.loads(seen.body) == {
        "model": "scripted",
        "input": ASK,
        "instructions": "Be brief.",
        "store": False,
        "max_output_tokens": 256,
    }
    assert seen.authorization == f"Bearer {PROVIDER_KEY}"


@BOTH_PROTOCOLS
async def test_a_stream_comes_in_events_and_is_charged_exactly(
    model: str, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=12, split_bytes=50))
    async with gateway.sdk(caller) as client, client.responses.stream(model=model, input=ASK) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert sum(event.type == "response.output_text.delta" for event in events) == 12
    assert final.output_text == " ".join(f"word{number}" for number in range(12))
    assert final.usage is not None
    assert final.usage.output_tokens == 12
    [row] = await usage_rows(database, caller, count=1)
    assert (row["cost_nano_usd"], row["outcome"], row["estimated"]) == (billed(fake_provider), "ok", False)


@BOTH_PROTOCOLS
async def test_several_tools_are_called_and_their_outputs_sent_back(
    model: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(tool_calls=BOTH_CITIES), Step(text="Sunny in both."))
    async with gateway.sdk(caller) as client:
        first = await client.responses.create(model=model, input=ASK, tools=[WEATHER], parallel_tool_calls=True)
        calls = [item for item in first.output if item.type == "function_call"]
        assert [json.loads(call.arguments)["city"] for call in calls] == ["Basel", "Zürich"]
        told: Any = [
            {"role": "user", "content": ASK},
            *(item.model_dump() for item in first.output),
            *({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls),
        ]
        last = await client.responses.create(model=model, input=told, tools=[WEATHER])
    assert last.output_text == "Sunny in both."


@BOTH_PROTOCOLS
async def test_arguments_of_tools_are_streamed(
    model: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(tool_calls=BOTH_CITIES, split_bytes=31))
    pieces: dict[int, str] = {}
    async with (
        gateway.sdk(caller) as client,
        client.responses.stream(model=model, input=ASK, tools=[WEATHER]) as stream,
    ):
        async for event in stream:
            if event.type == "response.function_call_arguments.delta":
                pieces[event.output_index] = pieces.get(event.output_index, "") + event.delta
    assert [json.loads(arguments)["city"] for arguments in pieces.values()] == ["Basel", "Zürich"]


@BOTH_PROTOCOLS
async def test_structured_answers_are_parsed(model: str, gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.sdk(caller) as client:
        whole = await client.responses.parse(model=model, input=ASK, text_format=Forecast)
        async with client.responses.stream(model=model, input=ASK, text_format=Forecast) as stream:
            streamed = await stream.get_final_response()
    assert whole.output_parsed == streamed.output_parsed == Forecast(city="text", sunny=True)  # the fake provider's own


async def test_pictures_pass(gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider) -> None:
    parts: Any = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,iVBORw0KGgo="},
    ]
    async with gateway.sdk(caller) as client:
        await client.responses.create(model="fake/chat", input=[{"role": "user", "content": parts}])
    [seen] = fake_provider.requests()
    assert json.loads(seen.body)["input"][0]["content"] == parts


@BOTH_PROTOCOLS
async def test_an_answer_cut_at_its_maximum_is_incomplete(
    model: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=50, times=2))
    async with gateway.sdk(caller) as client:
        whole = await client.responses.create(model=model, input=ASK, max_output_tokens=16)
        opened = await client.responses.create(model=model, input=ASK, max_output_tokens=16, stream=True)
        *_, last = [event async for event in opened]
    assert (whole.status, whole.incomplete_details and whole.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert last.type == "response.incomplete"


async def test_a_request_that_the_answer_repeats_is_not_taken_for_output(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    long = {"id": "resp_1", "object": "response", "instructions": "x" * 3_000_000, "output": [], "model": "m"}
    kinds = ("created", "in_progress", "completed")
    events = [{"type": f"response.{kind}", "sequence_number": n, "response": long} for n, kind in enumerate(kinds)]
    fake_provider.script(Step(sse="".join(f"data: {json.dumps(event)}\n\n" for event in events)))
    seen: list[str] = []
    async with gateway.sdk(caller) as client:
        opened = await client.responses.create(model="fake/chat", input=ASK, max_output_tokens=16, stream=True)
        await note_kinds(opened, seen)
    assert seen == [f"response.{kind}" for kind in kinds]


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("Half of an", 3)])
async def test_a_failed_response_says_so_and_costs_what_it_used(
    *,
    text: str,
    tokens: int,
    gateway: GatewayServer,
    caller: Caller,
    database: asyncpg.Connection,
    fake_provider: FakeProvider,
) -> None:
    step = Step(text=text, failure_code="rate_limit_exceeded", error_message="org-internal is poor", usage="null")
    fake_provider.script(step)
    async with gateway.sdk(caller) as client:
        opened = await client.responses.create(model="fake/chat", input=ASK, stream=True)
        *_, last = [event async for event in opened]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code == "rate_limit_exceeded"
    assert "org-internal" not in last.response.error.message
    [row] = await usage_rows(database, caller, count=1)
    assert (row["cost_nano_usd"] > tokens * OUTPUT_NANO_USD) is bool(tokens)
    assert row["cost_nano_usd"] == 0 or tokens


async def test_a_whole_failed_response_says_so_too(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(text="", failure_code="odd", error_message="org-internal is poor"))
    async with gateway.sdk(caller) as client:
        answer = await client.responses.create(model="fake/chat", input=ASK)
    assert (answer.status, answer.error and answer.error.code) == ("failed", "server_error")
    assert "org-internal" not in answer.model_dump_json()


@pytest.mark.parametrize("step", [Step(output_tokens=20, cut_after_chunks=4), Step(error_after_chunks=4)])
async def test_a_stream_that_breaks_off_raises_and_costs_what_came(
    step: Step, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(step)
    kinds: list[str] = []
    async with gateway.sdk(caller) as client:
        opened = await client.responses.create(model="fake/chat", input=ASK, stream=True)
        with pytest.raises(openai.APIError) as raised:
            await note_kinds(opened, kinds)
    assert isinstance(raised.value.body, dict)
    assert set(raised.value.body) == {"message", "type", "param", "code"}
    assert kinds.count("response.output_text.delta") == 4
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["estimated"]) == ("cut", True)
    assert row["cost_nano_usd"] > 4 * OUTPUT_NANO_USD


@BOTH_PROTOCOLS
async def test_leaving_a_stream_closes_the_providers_connection_and_is_not_free(
    model: str, gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    fake_provider.script(Step(output_tokens=50, hold_after_chunks=3))
    async with gateway.sdk(caller) as client:
        opened = await client.responses.create(model=model, input=ASK, stream=True)
        async for event in opened:
            if event.type == "response.output_text.delta":
                break
        await opened.close()
    await fake_provider.wait_for(client_gone=1)
    [row] = await usage_rows(database, caller, count=1)
    assert (row["outcome"], row["cost_nano_usd"] > 0) == ("client_gone", True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [WEATHER, {"type": "code_interpreter", "container": {"type": "auto"}}]}, "tools[1]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
async def test_what_has_no_bound_is_a_bad_request_and_reaches_nobody(
    fields: dict[str, Any], param: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    async with gateway.sdk(caller, max_retries=2) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.responses.create(**{"model": "fake/chat", "input": ASK, **fields})
    assert raised.value.param == param
    assert fake_provider.bill().counts.requests == 0


async def test_stored_responses_do_not_exist_here(gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.sdk(caller) as client:
        with pytest.raises(openai.NotFoundError, match="not kept here"):
            await client.responses.retrieve("resp_1")
        with pytest.raises(openai.NotFoundError, match="not kept here"):
            await client.responses.delete("resp_1")
        with pytest.raises(openai.NotFoundError, match="not kept here"):
            await client.responses.cancel("resp_1")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step(status=400), openai.BadRequestError),
        (Step(status=422), openai.UnprocessableEntityError),
        (Step(status=429, retry_after_s=9, times=0), openai.RateLimitError),
        (Step(status=500, times=0), openai.InternalServerError),
        (Step(status=401), openai.InternalServerError),
        (Step(body="half_json"), openai.InternalServerError),
        (Step(body="empty"), openai.InternalServerError),
    ],
    ids=["400", "422", "429", "500", "401", "half_json", "empty"],
)
async def test_the_official_client_raises_its_own_right_exception(
    step: Step, error: type[openai.APIStatusError], gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    fake_provider.script(step)
    async with gateway.sdk(caller) as client:
        with pytest.raises(error) as raised:
            await client.responses.create(model="fake/chat", input=ASK)
    assert isinstance(raised.value.body, dict)
    assert set(raised.value.body) == {"message", "type", "param", "code"}
    assert PROVIDER_KEY not in str(raised.value)
