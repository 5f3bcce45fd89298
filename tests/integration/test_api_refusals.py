"""What the API answers to requests that are wrong in themselves: always the envelope, never a 500."""

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.api_client import api_as, refusal
from tests.support.api_server import ApiServer
from tests.support.callers import Caller, new_caller
from tests.support.stack import RunningStack

JSON = {"content-type": "application/json"}


@pytest.fixture
async def person(stack: RunningStack, database: asyncpg.Connection) -> Caller:
    return await new_caller(stack, database)


@pytest.fixture
async def api(api_server: ApiServer, person: Caller) -> AsyncIterator[httpx.AsyncClient]:
    async with api_as(api_server, person) as client:
        yield client


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "body_missing"),
        (b"{", 400, "invalid_json"),
        (b'{"name": "x"} y', 400, "invalid_json"),
        (b'{"name": NaN}', 400, "invalid_json"),
        (b'{"name": "\xff\xfe"}', 400, "invalid_json"),
        (b'{"name": "\\ud800"}', 400, "invalid_json"),
        (b'{"name": "a\\u0000b"}', 400, "json_nul_character"),
        (b'{"name": "a", "name": "b"}', 400, "json_duplicate_key"),
        (b'{"name": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "json_too_deep"),
        (b'{"name": ' + b"9" * 100_000 + b"}", 422, "validation_failed"),
        (b"null", 422, "validation_failed"),
        (b"[]", 422, "validation_failed"),
        (b'"name"', 422, "validation_failed"),
        (b"{}", 422, "validation_failed"),
        (json.dumps({f"k{n}": n for n in range(100_000)}).encode(), 422, "validation_failed"),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_body_that_is_no_workspace_is_refused_with_a_reason(
    api: httpx.AsyncClient, raw: bytes, status: int, code: str
) -> None:
    response = await api.post("/v1/workspaces", content=raw, headers=JSON)
    assert refusal(response) in {(status, code), (400, "invalid_json")}
    assert len(response.content) < 10_000


async def test_every_field_at_fault_is_listed_at_once(api: httpx.AsyncClient) -> None:
    response = await api.post("/v1/auth/sign-up", json={"email": "nobody", "password": "x" * 100, "admin": True})
    assert refusal(response) == (422, "validation_failed")
    fields = {field["field"]: field["message"] for field in response.json()["error"]["details"]["fields"]}
    assert set(fields) == {"email", "password", "admin"}
    assert "x" * 100 not in response.text


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_a_body_of_another_type_is_refused(api: httpx.AsyncClient, content_type: str) -> None:
    response = await api.post("/v1/workspaces", content=b'{"name": "x"}', headers={"content-type": content_type})
    assert refusal(response)[0] == 415


async def test_a_compressed_body_is_refused(api: httpx.AsyncClient) -> None:
    response = await api.post("/v1/workspaces", content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    assert refusal(response)[0] == 415


async def test_a_body_that_declares_more_than_ten_mebibytes_is_refused_before_it_is_sent(
    api_server: ApiServer, person: Caller
) -> None:
    head = (
        "POST /v1/workspaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10485761\r\n"
        f"Authorization: Bearer {person.access_token}\r\n\r\n"
    )
    answer = await ask_by_hand(api_server, head.encode())
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"request_too_large"' in answer


async def ask_by_hand(server: ApiServer, request: bytes) -> bytes:
    """What the server says before it closes the connection, to bytes that no HTTP library would send."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_body_larger_than_ten_mebibytes_is_refused_when_it_comes_in_chunks(api: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 1024 * 1024

    response = await api.post("/v1/workspaces", content=chunks(), headers=JSON)
    assert refusal(response) == (413, "request_too_large")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "PUT", "PURGE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/nope", "/v1", "/v1/nope", "/llm2", "/v2/me"])
async def test_an_unknown_address_is_not_found_whatever_the_method(
    api: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await api.request(method, path)
    assert response.status_code == 404
    if method != "HEAD":
        assert refusal(response) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v1/workspaces/not-a-uuid", "/v1/workspaces/1/members", "/docs/nope"])
async def test_an_id_or_a_page_that_cannot_be_is_not_found(api: httpx.AsyncClient, path: str) -> None:
    assert refusal(await api.get(path)) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/me", "GET, HEAD, OPTIONS, PATCH"),
        ("DELETE", "/v1/workspaces", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/v1/workspaces/00000000-0000-4000-8000-000000000000", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("GET", "/v1/auth/sign-in", "OPTIONS, POST"),
        ("PURGE", "/v1/usage", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_method_an_address_does_not_answer_is_refused_with_those_it_does(
    api: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    refused = await api.request(method, path)
    assert refusal(refused) == (405, "method_not_allowed")
    assert refused.headers["allow"] == allow
    asked = await api.options(path)
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, allow, b"")


async def test_head_is_get_without_the_body(api: httpx.AsyncClient) -> None:
    got, head = await api.get("/v1/me"), await api.head("/v1/me")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=-1", "limit=101", "limit=1000000000", "limit=abc", "limit=1.5", "limit=",
        "limit=" + "9" * 400,
        "count=all", "count=", "cursor=", "cursor=x", "cursor=%00", "cursor=" + "A" * 300, "cursor=d29ya3NwYWNlc3w",
        "cursor=bWVtYmVyc3wxfDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw",  # of members
        "cursor=d29ya3NwYWNlc3wxfGlkLmd0LjA",  # where an id should be, a filter
    ],
)  # fmt: skip
async def test_a_page_that_cannot_be_is_refused(api: httpx.AsyncClient, query: str) -> None:
    response = await api.get(f"/v1/workspaces?{query}")
    assert response.status_code == 400
    assert refusal(response)[1] in {"invalid_parameter", "invalid_cursor"}


@pytest.mark.parametrize("query", ["since=yesterday", "since=2026-02-30", "since=2026-02-02&until=2026-02-01",
                                   "since=2020-01-01&until=2026-01-01", "cursor=x", "limit=0"])  # fmt: skip
async def test_a_usage_period_that_cannot_be_is_refused(api: httpx.AsyncClient, query: str) -> None:
    response = await api.get(f"/v1/usage?{query}")
    assert response.status_code == 400
    assert refusal(response)[1] in {"invalid_parameter", "invalid_cursor"}


@pytest.mark.parametrize("if_match", ["x", '"x"', 'W/"1"', '"1", "2"', '""', '"' + "f" * 16 + '"'])
async def test_an_if_match_that_is_no_tag_of_ours_is_refused(api: httpx.AsyncClient, if_match: str) -> None:
    response = await api.patch(f"/v1/workspaces/{uuid4()}", json={"name": "x"}, headers={"if-match": if_match})
    assert refusal(response) == (400, "invalid_if_match")


async def test_a_header_with_broken_lines_never_reaches_us(api_server: ApiServer) -> None:
    request = b"GET /v1/me HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x00b\r\nConnection: close\r\n\r\n"
    assert (await ask_by_hand(api_server, request)).startswith(b"HTTP/1.1 400")


async def test_an_unsafe_request_id_is_replaced_and_a_safe_one_kept(api: httpx.AsyncClient) -> None:
    kept = await api.get("/v1/me", headers={"x-request-id": "req-from-my-frontend"})
    replaced = await api.get("/v1/me", headers={"x-request-id": "a b; drop"})
    assert kept.headers["x-request-id"] == "req-from-my-frontend"
    assert replaced.headers["x-request-id"].startswith("req_")


async def test_every_answer_carries_the_security_headers(api: httpx.AsyncClient) -> None:
    for path in ("/v1/me", "/nope", "/docs", "/openapi.json", "/health/live"):
        headers = (await api.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cache-control"] == "no-store", path
        assert "x-request-id" in headers, path


async def test_a_forged_host_changes_nothing(api: httpx.AsyncClient) -> None:
    forged = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-prefix": "/evil"}
    response = await api.post("/v1/workspaces", json={"name": "x"}, headers=forged)
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/workspaces/{response.json()['data']['id']}"
