"""The whole path of the first issue, driven as an application would: the official `supabase` and `openai` clients."""

import json
import secrets
from dataclasses import dataclass

import httpx
import openai
import pytest
from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions

from tests.e2e.conftest import Backend, recorded_usage
from tests.support.pools import PATIENCE_S

PASSWORD = "correct-Horse-9-battery"


@dataclass(frozen=True)
class Person:
    """Somebody who has signed up through the official Supabase client."""

    supabase: Client
    email: str
    access_token: str


def supabase_client(backend: Backend) -> Client:
    """The official client, with more patience than its 5 s."""
    options = SyncClientOptions(httpx_client=httpx.Client(timeout=PATIENCE_S))
    return create_client(backend.supabase_url, backend.publishable_key, options)


@pytest.fixture
def person(backend: Backend) -> Person:
    email = f"ada-{secrets.token_hex(6)}@example.com"
    client = supabase_client(backend)
    answer = client.auth.sign_up({"email": email, "password": PASSWORD})
    assert answer.session is not None
    return Person(client, email, answer.session.access_token)


def api(backend: Backend, person: Person) -> httpx.Client:
    headers = {"Authorization": f"Bearer {person.access_token}"}
    return httpx.Client(base_url=backend.api_url, headers=headers, timeout=PATIENCE_S)


def llm(backend: Backend, person: Person) -> openai.OpenAI:
    return openai.OpenAI(base_url=backend.gateway_url, api_key=person.access_token, max_retries=0)


def test_person_signs_up_makes_a_workspace_and_gets_a_streamed_answer_whose_usage_is_recorded(
    backend: Backend, person: Person
) -> None:
    with api(backend, person) as client:
        made = client.post("/v1/workspaces", json={"name": "Difference Engine"})
        assert made.status_code == 201, made.text
        listed = client.get("/v1/workspaces").json()["data"]
        assert {workspace["name"] for workspace in listed} >= {"Difference Engine"}

    stream = llm(backend, person).chat.completions.create(
        model="local/smollm2",
        messages=[{"role": "user", "content": "Name three colours."}],
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    usage = chunks[-1].usage
    assert text.strip()
    assert usage is not None
    assert usage.completion_tokens > 0

    with api(backend, person) as client:
        recorded = recorded_usage(client, backend.api_url)
    assert [(row["model"], row["calls"]) for row in recorded] == [("local/smollm2", 1)]
    assert recorded[0]["input_tokens"] + recorded[0]["cached_input_tokens"] == usage.prompt_tokens
    assert recorded[0]["output_tokens"] == usage.completion_tokens


def test_openai_client_gets_a_whole_answer_from_the_real_model(backend: Backend, person: Person) -> None:
    answer = llm(backend, person).chat.completions.create(
        model="local/smollm2", messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8


def test_openai_client_uses_tools(backend: Backend, person: Person) -> None:
    backend.fake_provider.reset()
    answer = llm(backend, person).chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "parameters": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}},
                        "required": ["city"],
                    },
                },
            }
        ],
        tool_choice="required",
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "weather"
    assert "city" in json.loads(calls[0].function.arguments)


def test_model_list_says_that_the_local_model_is_often_wrong(backend: Backend, person: Person) -> None:
    models = {model.id: model for model in llm(backend, person).models.list()}
    assert set(models) == {"local/smollm2", "scripted"}
    assert "often wrong" in str(models["local/smollm2"].model_dump())


def test_official_supabase_client_sees_only_its_own_rows(backend: Backend, person: Person) -> None:
    stranger = supabase_client(backend)
    stranger.auth.sign_up({"email": f"eve-{secrets.token_hex(6)}@example.com", "password": PASSWORD})

    mine = person.supabase.schema("api").table("workspaces").select("id").execute().data
    theirs = stranger.schema("api").table("workspaces").select("id").execute().data

    assert len(mine) == len(theirs) == 1
    assert mine != theirs


def test_nobody_gets_an_answer_without_a_token(backend: Backend) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=backend.gateway_url, api_key="sk-nonsense", max_retries=0).models.list()


def test_signed_out_person_signs_in_again_through_the_api(backend: Backend, person: Person) -> None:
    with api(backend, person) as client:
        signed_out = client.post("/v1/auth/sign-out")
        assert signed_out.status_code == 204, signed_out.text
    credentials = {"email": person.email, "password": PASSWORD}
    signed_in = httpx.post(f"{backend.api_url}/v1/auth/sign-in", json=credentials, timeout=PATIENCE_S)
    assert signed_in.status_code == 200, signed_in.text
    assert signed_in.json()["data"]["access_token"]
