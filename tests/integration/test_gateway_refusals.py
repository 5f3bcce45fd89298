"""Requests that nobody honest sends: each gets the right status in OpenAI's shape, and no provider hears of it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.callers import Caller, mint_token, new_caller
from tests.support.fake_provider import FakeProvider
from tests.support.gateway_ledger import usage_rows
from tests.support.gateway_server import GatewayServer
from tests.support.stack import RunningStack

Json = dict[str, Any]  # bodies are JSON of many shapes
MESSAGES: list[Json] = [{"role": "user", "content": "Hi."}]
ASK: Json = {"model": "fake/chat", "messages": MESSAGES}
JSON_BODY = {"content-type": "application/json"}


def error_of(response: httpx.Response) -> Json:
    """The error, which has OpenAI's four keys and nothing else."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error: Json = body["error"]
    return error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"model": ["fake/chat"]}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi."}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": ["Hi."]}, "messages[0]"),
        ({"messages": [{"content": "Hi."}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "include_usage"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1e308}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"max_tokens": [1]}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": {}}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": -5}, "n"),
        ({"n": 1000}, "n"),
        ({"n": "2"}, "n"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "mcp", "server_url": "http://127.0.0.1/"}]}, "tools[0]"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"n_predict": 100_000}, "n_predict"),
        ({"max_new_tokens": 100_000}, "max_new_tokens"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
async def test_a_field_of_the_wrong_kind_is_named(
    fields: Json, param: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", json={**ASK, **fields})
    error = error_of(response)
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert response.headers["x-should-retry"] == "false"
    assert fake_provider.bill().counts.requests == 0


@pytest.mark.parametrize(
    "field",
    [
        "api_base",
        "base_url",
        "api_key",
        "api_version",
        "extra_headers",
        "extra_body",
        "headers",
        "custom_llm_provider",
        "organization",
        "model_list",
        "models",
        "fallbacks",
        "num_retries",
        "timeout",
        "mock_response",
        "aws_secret_access_key",
        "vertex_credentials",
        "azure_ad_token",
        "litellm_metadata",
    ],
)
@pytest.mark.parametrize("model", ["fake/chat", "fake/claude"])
async def test_a_client_cannot_say_where_a_call_goes(
    field: str, model: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    elsewhere = {field: f"{fake_provider.url}/_trap"}
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", json={**ASK, "model": model, **elsewhere})
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (400, "forbidden_field", field)
    assert fake_provider.bill().counts.requests == fake_provider.bill().counts.trapped == 0


async def test_the_gateway_fetches_no_picture(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    parts = [{"type": "image_url", "image_url": {"url": f"{fake_provider.url}/_trap"}}]
    async with gateway.http(caller) as client:
        response = await client.post(
            "/chat/completions", json={"model": "fake/claude", "messages": [{"role": "user", "content": parts}]}
        )
    assert response.status_code == 400
    assert error_of(response)["code"] == "unsupported_content"
    assert fake_provider.bill().counts.requests == fake_provider.bill().counts.trapped == 0


@pytest.mark.parametrize("field", ["logit_bias_of_tomorrow", "prediction_mode"])
async def test_a_field_that_cannot_be_translated_is_refused_and_costs_nothing(
    field: str, gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", json={**ASK, "model": "fake/claude", field: 1})
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", field)
    assert fake_provider.bill().counts.requests == 0


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"\xff\xfe{}", 400),
        (b'{"model": "a", "model": "b"}', 400),
        (b'{"model": "fake/chat", "messages": NaN}', 400),
        (b'{"model": "\\u0000"}', 400),
        (b"[" * 100_000, 400),
        (b'{"messages":' * 5_000 + b"1" + b"}" * 5_000, 400),
        (b'{"max_tokens": ' + b"9" * 100_000 + b"}", 400),
    ],
    ids=["empty", "half", "null", "list", "text", "utf16", "twice", "nan", "nul", "deep", "deeper", "digits"],
)
async def test_a_body_that_cannot_be_read_is_refused(
    raw: bytes, status: int, gateway: GatewayServer, caller: Caller
) -> None:
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", content=raw, headers=JSON_BODY)
    assert response.status_code == status
    error_of(response)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_not_read(announced: bool, gateway: GatewayServer, caller: Caller) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * (1024 * 1024)

    async with gateway.http(caller) as client:
        try:
            response = await client.post(
                "/chat/completions", content=b" " * (11 * 1024 * 1024) if announced else endless(), headers=JSON_BODY
            )
        except (httpx.WriteError, httpx.ReadError):
            return  # refused and closed while the rest was still being sent
    assert response.status_code == 413
    error_of(response)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=x"},
        {**JSON_BODY, "content-encoding": "gzip"},
    ],
    ids=["text", "multipart", "gzip"],
)
async def test_a_body_that_is_not_plain_json_is_refused(
    headers: dict[str, str], gateway: GatewayServer, caller: Caller
) -> None:
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", content=json.dumps(ASK), headers=headers)
    assert response.status_code == 415
    error_of(response)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/chat/completions", 405),
        ("DELETE", "/models", 405),
        ("POST", "/models/fake/chat", 405),
        ("GET", "/nothing", 404),
        ("GET", "/../health/live", 404),
        ("POST", "/completions", 404),
        ("GET", "/models/no/such", 404),
        ("GET", "/models/FAKE/chat", 404),
        ("GET", "/models/%00", 404),
    ],
)
async def test_what_is_not_there_is_said_in_openais_shape(
    method: str, path: str, status: int, gateway: GatewayServer, caller: Caller
) -> None:
    async with gateway.http(caller) as client:
        response = await client.request(method, httpx.URL(f"{gateway.base_url}{path}"))
    assert response.status_code == status
    error_of(response)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("model", ["fake/Chat", " fake/chat", "fake/chat ", "fake⁄chat", "fake/chat\u0300", "x" * 300])  # noqa: RUF001
async def test_a_models_name_is_exact(model: str, gateway: GatewayServer, caller: Caller) -> None:
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", json={**ASK, "model": model})
    assert response.status_code in (400, 404)
    assert error_of(response)["param"] == "model"


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Basic dXNlcjpwYXNz", "Bearer not-a-token", "Bearer a.b.c", "Bearer " + "x" * 7000],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/models"), ("POST", "/chat/completions")])
async def test_without_a_true_token_nothing_is_answered(
    authorization: str | None, method: str, path: str, gateway: GatewayServer, fake_provider: FakeProvider
) -> None:
    fake_provider.reset()
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(base_url=gateway.base_url, headers=headers, timeout=30) as client:
        response = await client.request(method, path, json=ASK if method == "POST" else None)
    assert response.status_code == 401
    assert error_of(response)["code"] in {"token_missing", "token_invalid"}
    assert response.headers["www-authenticate"] == "Bearer"
    assert fake_provider.bill().counts.requests == 0


@pytest.mark.parametrize("role", ["anon", "service_role"])
async def test_a_projects_own_keys_are_nobody(
    role: str, gateway: GatewayServer, stack: RunningStack, caller: Caller
) -> None:
    token = mint_token(stack, caller.user_id, session_id=caller.user_id, role=role)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=gateway.base_url, headers=headers, timeout=30) as client:
        assert (await client.get("/models")).status_code == 401


async def test_a_token_that_outlived_its_user_is_refused(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection, fake_provider: FakeProvider
) -> None:
    await database.execute("delete from auth.users where id = $1", caller.user_id)
    async with gateway.http(caller) as client:
        response = await client.post("/chat/completions", json=ASK)
    assert (response.status_code, error_of(response)["code"]) == (401, "user_not_found")
    assert fake_provider.bill().counts.requests == 0


async def test_one_callers_limits_are_not_anothers(
    gateway: GatewayServer, stack: RunningStack, database: asyncpg.Connection, caller: Caller
) -> None:
    other = await new_caller(stack, database)
    async with gateway.http(caller) as mine, gateway.http(other) as theirs:
        await mine.post("/chat/completions", json=ASK)
        answer = await theirs.post("/chat/completions", json=ASK)
    assert answer.headers["x-ratelimit-remaining-requests"] == "59"
    for one in (caller, other):
        await usage_rows(database, one, count=1)


async def test_a_client_that_repeats_its_own_request_id_is_charged_each_time(
    gateway: GatewayServer, caller: Caller, database: asyncpg.Connection
) -> None:
    async with gateway.http(caller) as client:
        answers = [
            await client.post("/chat/completions", json=ASK, headers={"x-request-id": "my-own-request-id"})
            for _ in range(2)
        ]
    assert [answer.headers["x-request-id"] for answer in answers] == ["my-own-request-id"] * 2
    ids = {answer.headers["x-buttress-call-id"] for answer in answers}
    rows = await usage_rows(database, caller, count=2)
    assert {row["request_id"] for row in rows} == ids
    assert len(ids) == 2


async def test_neither_prompts_nor_keys_nor_tokens_are_logged(
    gateway: GatewayServer, caller: Caller, fake_provider: FakeProvider
) -> None:
    canary = "canary-prompt-0b1d"
    async with gateway.http(caller) as client:
        for body in (
            {**ASK, "messages": [{"role": "user", "content": canary}]},
            {**ASK, "messages": [{"role": "user", "content": canary}], "max_tokens": canary},
            {**ASK, "model": "fake/claude", "messages": [{"role": "user", "content": canary}]},
        ):
            await client.post("/chat/completions", json=body)
    log = gateway.log_file.read_text()
    assert canary not in log
    assert caller.access_token not in log
    assert "canary-provider-key" not in log
