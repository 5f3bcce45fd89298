"""OpenAI's client 3.x as a judge. Runs in an environment of its own, against a gateway and a fake provider that run.

Not collected by name: tests/integration/test_gateway_openai3_sdk.py starts it. From this repository it imports nothing.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

BASE_URL, TOKEN, POOR_TOKEN, CONTROL_URL = (
    os.environ[f"JUDGE_{name}"] for name in ("BASE_URL", "TOKEN", "POOR_TOKEN", "CONTROL_URL")
)
MODEL = "fake/chat"
ASK: Any = [{"role": "user", "content": "What is the weather in Basel?"}]
CHAT_TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
TOOL: Any = {"type": "function", "name": "get_weather", "strict": False, "parameters": {"type": "object"}}
CITIES = [{"name": "get_weather", "arguments": f'{{"city": "{city}"}}'} for city in ("Basel", "Bern")]
FORECAST = '{"city": "Basel", "sunny": true}'


class Forecast(BaseModel):
    city: str
    sunny: bool


def control(path: str, body: object = None) -> Any:  # JSON
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{CONTROL_URL}{path}", data=data), timeout=30) as answer:
        return json.load(answer)


def script(*steps: dict[str, object]) -> None:
    control("/_script", {"steps": steps})


def seen() -> int:
    """How many requests have reached the provider."""
    return int(control("/_bill")["requests"])


@pytest.fixture(autouse=True)
def _fresh() -> None:
    control("/_reset", {})


@pytest.fixture
def client() -> Iterator[OpenAI]:
    with OpenAI(base_url=BASE_URL, api_key=TOKEN, max_retries=0, timeout=30) as made:
        yield made


def test_it_is_version_3() -> None:
    assert openai.__version__.startswith("3.")


def test_chat(client: OpenAI) -> None:
    script({"text": "Sunny."}, {"output_tokens": 5})
    assert client.chat.completions.create(model=MODEL, messages=ASK).choices[0].message.content == "Sunny."
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    *_, last = stream
    assert last.usage is not None
    assert last.usage.completion_tokens == 5


def test_chat_tools_in_a_stream(client: OpenAI) -> None:
    script({"tool_calls": CITIES, "split_bytes": 40})
    with client.chat.completions.stream(model=MODEL, messages=ASK, tools=[CHAT_TOOL]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [json.loads(call.function.arguments)["city"] for call in message.tool_calls] == ["Basel", "Bern"]


def test_chat_structure(client: OpenAI) -> None:
    script({"text": FORECAST})
    parsed = client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Forecast)
    assert parsed.choices[0].message.parsed == Forecast(city="Basel", sunny=True)


def test_responses(client: OpenAI) -> None:
    script({"text": "Sunny.", "times": 2}, {"text": FORECAST})
    assert client.responses.create(model=MODEL, input="Weather?").output_text == "Sunny."
    with client.responses.stream(model=MODEL, input="Weather?") as stream:
        final = stream.get_final_response()
    assert (final.output_text, final.status) == ("Sunny.", "completed")
    parsed = client.responses.parse(model=MODEL, input="Weather?", text_format=Forecast)
    assert parsed.output_parsed == Forecast(city="Basel", sunny=True)


def test_responses_tools_in_a_stream(client: OpenAI) -> None:
    script({"tool_calls": CITIES, "split_bytes": 40})
    with client.responses.stream(model=MODEL, input="Weather?", tools=[TOOL]) as stream:
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Basel", "Bern"]


def test_embeddings_and_models(client: OpenAI) -> None:
    assert len(client.embeddings.create(model=MODEL, input=["a", "b"], dimensions=8).data[1].embedding) == 8
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def test_the_asynchronous_client() -> None:
    async def ask() -> tuple[str, str]:
        async with AsyncOpenAI(base_url=BASE_URL, api_key=TOKEN, max_retries=0, timeout=30) as client:
            chunks = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
            said = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
            answer = await client.responses.create(model=MODEL, input="Weather?")
        return said, answer.output_text

    said, output = asyncio.run(ask())
    assert said == output != ""


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (401, openai.InternalServerError),
    ],
)
def test_each_status_raises_its_own_exception(status: int, error: type[openai.APIStatusError], client: OpenAI) -> None:
    script({"status": status, "retry_after_s": 9, "times": 0})
    for ask in (
        lambda: client.chat.completions.create(model=MODEL, messages=ASK),
        lambda: client.responses.create(model=MODEL, input="Weather?"),
        lambda: client.embeddings.create(model=MODEL, input="Weather?"),
    ):
        with pytest.raises(error) as raised:
            ask()
        assert raised.value.request_id


def test_our_own_refusals(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-nobody").responses.create(model=MODEL, input="x")
    assert seen() == 0


@pytest.mark.parametrize("step", [{"cut_after_chunks": 2}, {"error_after_chunks": 2}])
def test_a_broken_stream_raises(step: dict[str, object], client: OpenAI) -> None:
    script(step, step)
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=MODEL, messages=ASK, stream=True))
    with pytest.raises(openai.APIError):
        list(client.responses.create(model=MODEL, input="Weather?", stream=True))


def test_what_may_help_is_tried_again(client: OpenAI) -> None:
    script({"status": 503, "retry_after_s": 0.1, "times": 0})
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=MODEL, messages=ASK)
    once = seen()
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=1).chat.completions.create(model=MODEL, messages=ASK)
    assert seen() > 2 * once - 1


def test_a_spent_budget_is_asked_for_once() -> None:
    attempts: list[object] = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [attempts.append]})
    with OpenAI(base_url=BASE_URL, api_key=POOR_TOKEN, max_retries=5, http_client=http) as client:
        for ask in (
            lambda: client.chat.completions.create(model=MODEL, messages=ASK),
            lambda: client.responses.create(model=MODEL, input="Weather?"),
            lambda: client.embeddings.create(model=MODEL, input="Weather?"),
        ):
            with pytest.raises(openai.RateLimitError) as refused:
                ask()
            assert refused.value.code == "insufficient_quota"
    assert len(attempts) == 3
    assert seen() == 0
