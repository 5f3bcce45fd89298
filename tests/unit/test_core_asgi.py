"""What the edge promises for every request, whatever the application inside does."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import structlog
from litestar import Litestar, Request, Response, get, post
from litestar.response import Stream

from core.asgi import HAS_OWN_LINE, AsgiApp, Edge, Message, Receive, Scope, Send, render_envelope
from core.errors import ButtressError, InvalidInput, NotFound, TooManyRequests, Unavailable
from core.logging import configure_logging
from core.request_id import request_id_var

LIMIT = 1000


@pytest.fixture(autouse=True)
def log() -> Iterator[io.BytesIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.BytesIO()
    configure_logging("DEBUG", stream=stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def events(log: io.BytesIO, name: str) -> list[dict[str, Any]]:  # log lines hold anything
    return [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == name]


async def read_all(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_all(receive)
    seen = {"bytes": len(body), "state": scope["state"]["request_id"], "variable": request_id_var.get()}
    await send({"type": "http.response.start", "status": 201, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})


def client(app: AsgiApp, **options: Any) -> httpx.AsyncClient:  # the edge's own options
    edge = Edge(app, max_body_bytes=LIMIT, **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://test")


def raising(error: Exception, *, after_start: bool = False) -> AsgiApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise error

    return app


async def call(app: AsgiApp, messages: list[Message], **scope: Any) -> list[Message]:  # an ASGI scope
    """What the edge around `app` sends, when it receives these messages and then nothing."""
    sent: list[Message] = []
    waiting = iter(messages)

    async def receive() -> Message:
        try:
            return next(waiting)
        except StopIteration:
            await asyncio.Event().wait()
            raise AssertionError from None

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": "/x", "headers": [], "query_string": b"", **scope}
    await Edge(app, max_body_bytes=LIMIT)(whole, receive, send)
    return sent


async def test_every_request_has_an_id_that_all_layers_know() -> None:
    async with client(echo) as http:
        answer = await http.post("/", content=b"abc")
    request_id = answer.headers["x-request-id"]
    assert request_id.startswith("req_")
    assert answer.json() == {"bytes": 3, "state": request_id, "variable": request_id}
    assert request_id_var.get() is None


async def test_a_safe_id_of_the_caller_is_used_and_an_unsafe_one_is_not() -> None:
    async with client(echo) as http:
        assert (await http.post("/", headers={"x-request-id": "my-trace-1"})).json()["variable"] == "my-trace-1"
        assert (await http.post("/", headers={"X-Request-Id": "x' or 1=1 --"})).json()["variable"].startswith("req_")


async def test_requests_do_not_share_state_even_where_the_server_does() -> None:
    shared: dict[str, object] = {"from_lifespan": 1}
    seen: list[dict[str, object]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    await call(app, [], state=shared)
    await call(app, [], state=shared)
    assert shared == {"from_lifespan": 1}
    assert seen[0]["from_lifespan"] == 1
    assert seen[0]["request_id"] != seen[1]["request_id"]


async def test_answers_carry_the_security_headers() -> None:
    async with client(echo) as http:
        headers = (await http.post("/")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers


async def test_production_insists_on_tls() -> None:
    async with client(echo, production=True) as http:
        assert "max-age=63072000" in (await http.post("/")).headers["strict-transport-security"]


async def test_an_application_may_choose_its_own_caching() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b"x"})

    async with client(app) as http:
        answer = await http.get("/")
    assert answer.headers.get_list("cache-control") == ["max-age=60"]
    assert answer.headers["x-frame-options"] == "DENY"


async def test_a_body_that_says_it_is_too_large_is_refused_without_asking_the_application() -> None:
    def app(*_: object) -> None:
        raise AssertionError("asked the application")

    sent = await call(app, too_large_in_pieces(), headers=[(b"content-length", str(3 * LIMIT).encode())])  # type: ignore[arg-type]
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]
    error = json.loads(sent[1]["body"])["error"]
    assert error["code"] == "request_too_large"
    assert error["details"] == {"max_bytes": LIMIT}
    assert error["request_id"].startswith("req_")


def too_large_in_pieces() -> list[Message]:
    return [{"type": "http.request", "body": b"x" * (LIMIT // 2), "more_body": piece < 5} for piece in range(6)]


@pytest.mark.parametrize("headers", [[(b"content-length", str(3 * LIMIT).encode())], []])
async def test_a_client_may_finish_sending_what_is_too_large_before_it_is_told(
    headers: list[tuple[bytes, bytes]],
) -> None:
    left = too_large_in_pieces()
    left_at_the_answer: list[int] = []

    async def receive() -> Message:
        return left.pop(0)

    async def send(message: Message) -> None:
        left_at_the_answer.append(len(left))

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": headers}
    await Edge(echo, max_body_bytes=LIMIT)(scope, receive, send)
    assert left_at_the_answer == [0, 0]


async def test_a_client_that_waits_for_our_word_is_not_told_to_send_what_is_too_large() -> None:
    headers = [(b"content-length", str(LIMIT + 1).encode()), (b"expect", b"100-continue")]
    assert (await call(echo, [], headers=headers))[0]["status"] == 413  # `call` would wait for ever


async def test_a_body_that_does_not_come_is_given_up() -> None:
    sent: list[Message] = []
    began: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        if began:
            return began.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": []}
    await Edge(echo, body_wait_s=0.05)(scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["code"] == "request_timeout"


async def test_once_the_body_is_there_nobody_is_hurried() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        with pytest.raises(TimeoutError):  # ours, far beyond the edge's
            await asyncio.wait_for(receive(), 0.1)
        await echo_nothing(send)

    async def receive() -> Message:
        if not asked:
            asked.append(True)
            return {"type": "http.request", "body": b""}
        await asyncio.Event().wait()
        raise AssertionError

    asked: list[bool] = []
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": []}
    await Edge(app, body_wait_s=0.01)(scope, receive, send)
    assert sent[0]["status"] == 204


async def echo_nothing(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def test_a_body_that_turns_out_too_large_is_refused() -> None:
    assert (await call(echo, too_large_in_pieces()))[0]["status"] == 413


async def test_a_body_larger_than_it_said_is_refused() -> None:
    whole: list[Message] = [{"type": "http.request", "body": b"x" * (LIMIT + 1)}]
    assert (await call(echo, whole, headers=[(b"content-length", b"5")]))[0]["status"] == 413


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    whole: list[Message] = [{"type": "http.request", "body": b"x" * LIMIT}]
    sent = await call(echo, whole, headers=[(b"content-length", str(LIMIT).encode())])
    assert json.loads(sent[1]["body"])["bytes"] == LIMIT


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"", b"abc", b"+5"])
async def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    sent = await call(echo, [], headers=[(b"content-length", length)])
    assert sent[0]["status"] == 400


async def test_a_length_of_a_million_digits_is_refused_at_once() -> None:
    sent = await call(echo, too_large_in_pieces(), headers=[(b"content-length", b"9" * 10**6)])
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity", "unknown"])
async def test_compressed_bodies_are_refused(encoding: str) -> None:
    async with client(echo) as http:
        answer = await http.post("/", content=b"x", headers={"content-encoding": encoding})
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "content_encoding_not_supported"


async def test_the_identity_encoding_is_no_encoding() -> None:
    async with client(echo) as http:
        assert (await http.post("/", content=b"x", headers={"content-encoding": "Identity"})).status_code == 201


async def test_a_fault_of_ours_is_answered_without_its_text_and_logged_once_with_its_cause(log: io.BytesIO) -> None:
    fault = RuntimeError("canary")
    fault.__cause__ = KeyError("root of it")
    async with client(raising(fault)) as http:
        answer = await http.get("/")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
    assert "canary" not in answer.text
    (line,) = events(log, "unhandled_error")
    assert "RuntimeError: canary" in line["exception"]
    assert "root of it" in line["exception"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert log.getvalue().count(b"RuntimeError") == 1


async def test_an_error_of_our_tree_that_escapes_is_answered_as_it_is(log: io.BytesIO) -> None:
    async with client(raising(TooManyRequests("Slow down.", retry_after_s=3))) as http:
        answer = await http.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["message"] == "Slow down."
    assert events(log, "request_failed") == []


async def test_an_outage_is_logged_with_its_cause(log: io.BytesIO) -> None:
    outage = Unavailable()
    outage.__cause__ = ConnectionRefusedError("db")
    async with client(raising(outage)) as http:
        assert (await http.get("/")).status_code == 503
    assert "ConnectionRefusedError" in events(log, "request_failed")[0]["exception"]


async def test_half_an_answer_stays_half(log: io.BytesIO) -> None:
    sent = await call(raising(RuntimeError("late"), after_start=True), [])
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["more_body"]  # nobody takes it for a whole one
    assert len(events(log, "unhandled_error")) == 1


async def test_a_service_may_write_errors_in_its_own_shape() -> None:
    def shape(error: ButtressError, request_id: str, scope: Scope) -> bytes:
        return json.dumps({"oops": error.code, "at": scope["path"], "id": request_id}).encode()

    async with client(raising(NotFound()), render_error=shape) as http:
        answer = await http.get("/llm/x")
    assert answer.json() == {"oops": "not_found", "at": "/llm/x", "id": answer.headers["x-request-id"]}


async def test_each_request_has_one_access_line_without_its_query(log: io.BytesIO) -> None:
    async with client(echo) as http:
        answer = await http.post("/v1/me?token=canary", content=b"abc")
    (line,) = events(log, "request")
    assert {name: line[name] for name in ("level", "method", "path", "status", "bytes_in", "bytes_out")} == {
        "level": "info",
        "method": "POST",
        "path": "/v1/me",
        "status": 201,
        "bytes_in": 3,
        "bytes_out": len(answer.content),
    }
    assert 0 <= line["first_byte_ms"] <= line["duration_ms"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert b"canary" not in log.getvalue()


async def test_the_access_line_has_the_path_that_was_asked_for_also_below_a_mount(log: io.BytesIO) -> None:
    async def mounting(scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = scope["path"].removeprefix("/llm")
        await echo(scope, receive, send)

    await call(mounting, [{"type": "http.request", "body": b""}], path="/llm/v1/models")
    assert events(log, "request")[0]["path"] == "/llm/v1/models"


async def test_an_application_that_has_written_its_own_line_gets_no_second_one(log: io.BytesIO) -> None:
    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][HAS_OWN_LINE] = True
        await echo(scope, receive, send)

    async with client(telling) as http:
        await http.post("/llm/v1/chat/completions", content=b"abc")
    assert events(log, "request") == []


async def test_health_checks_do_not_fill_the_log(log: io.BytesIO) -> None:
    async with client(echo) as http:
        await http.get("/health/live")
    assert events(log, "request")[0]["level"] == "debug"


async def test_a_path_cannot_forge_a_log_line(log: io.BytesIO) -> None:
    await call(raising(NotFound()), [], path='/x"}\n{"event":"forged"}\x1b[2J')
    assert len(log.getvalue().splitlines()) == 1
    assert events(log, "forged") == []


async def test_streams_are_not_held_back() -> None:
    may_go_on = asyncio.Event()
    sent: asyncio.Queue[bytes] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await may_go_on.wait()
        await send({"type": "http.response.body", "body": b"second"})

    async def send(message: Message) -> None:
        await sent.put(message.get("body", b""))

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    running = asyncio.create_task(Edge(app)(scope, receive, send))
    assert [await sent.get(), await sent.get()] == [b"", b"first"]
    assert not running.done()
    may_go_on.set()
    await running
    assert await sent.get() == b"second"


async def test_a_client_that_leaves_is_noticed_inside(log: io.BytesIO) -> None:
    left: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        left.append((await receive())["type"])

    assert await call(app, [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]) == []
    assert left == ["http.disconnect"]
    assert events(log, "request")[0]["status"] is None


async def test_a_body_that_breaks_off_is_the_callers_mistake(log: io.BytesIO) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)

    half = {"type": "http.request", "body": b"half", "more_body": True}
    start, _ = await call(app, [half, {"type": "http.disconnect"}])
    assert start["status"] == 400
    assert (b"connection", b"close") in start["headers"]
    assert events(log, "request")[0]["status"] == 400


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"x-buttress-workspace"])
async def test_who_asks_is_said_once(name: bytes) -> None:
    start, body = await call(echo, [], headers=[(name, b"one"), (b"accept", b"*/*"), (name, b"two")])
    assert start["status"] == 400
    assert json.loads(body["body"])["error"]["code"] == "duplicate_header"


async def test_cancelling_the_server_task_reaches_the_application(log: io.BytesIO) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = asyncio.create_task(call(app, []))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
    assert len(events(log, "request")) == 1


async def test_an_edge_inside_an_edge_steps_aside(log: io.BytesIO) -> None:
    async with client(Edge(echo, max_body_bytes=1)) as http:
        answer = await http.post("/", content=b"longer than one byte")
    assert answer.status_code == 201
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert len(events(log, "request")) == 1


async def test_lifespan_events_pass_through(log: io.BytesIO) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await call(app, [], type="lifespan")
    assert seen == ["lifespan"]
    assert log.getvalue() == b""


@get("/stream")
async def stream() -> Stream:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    return Stream(chunks())


@post("/size")
async def size(request: Request[Any, Any, Any]) -> int:  # Litestar's generic slots for user, auth and state
    return len(await request.body())


def _on_error(_: Request[Any, Any, Any], error: ButtressError) -> Response[dict[str, object]]:  # as above
    return Response(error.body(request_id_var.get() or ""), status_code=error.status)


async def test_it_wraps_a_litestar_application() -> None:
    app = Litestar([stream, size], exception_handlers={ButtressError: _on_error}, openapi_config=None)
    async with client(app) as http:  # type: ignore[arg-type]
        assert (await http.get("/stream")).text == "ab"
        assert (await http.post("/size", content=b"x" * LIMIT)).text == str(LIMIT)
        assert (await http.get("/nothing")).headers["x-request-id"]

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 300

        answer = await http.post("/size", content=endless())
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_the_envelope_shows_what_it_can_of_odd_details() -> None:
    error = InvalidInput(details={"when": {1, 2}})
    assert b"invalid_request" in render_envelope(error, "req_1", {})
