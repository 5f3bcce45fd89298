"""Clients that send slowly, nothing, too much, or leave: each is dealt with, and nobody else waits for it."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.support.api_server import ApiServer
from tests.support.callers import Caller
from tests.support.eventually import eventually
from tests.support.stack import RunningStack

LONGER_THAN_WE_WAIT_S = 60.0  # 10 s, and a slow machine


def connect(api_server: ApiServer) -> socket.socket:
    url = urlsplit(api_server.url)
    return socket.create_connection((url.hostname, url.port or 80), timeout=LONGER_THAN_WE_WAIT_S)


def everything(connection: socket.socket) -> bytes:
    """What the server says until it closes the connection."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(path: str, length: int, token: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


async def test_silent_and_stalled_clients_are_cut(api_server: ApiServer, caller: Caller) -> None:
    silent = connect(api_server)
    stalled = {path: connect(api_server) for path in ("/v1/auth/sign-in", "/v1/workspaces", "/llm/v1/chat/completions")}
    for path, connection in stalled.items():
        connection.sendall(head(path, 1000, caller.access_token) + b"{")
    assert everything(silent) == b""
    for connection in stalled.values():
        answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"request_timeout" in answer


@pytest.mark.parametrize("path", ["/v1/workspaces", "/llm/v1/chat/completions"])
async def test_a_client_that_sends_too_much_can_finish_and_reads_why_it_was_refused(
    api_server: ApiServer, caller: Caller, path: str
) -> None:
    too_much = b"x" * (20 * 1024 * 1024)
    connection = connect(api_server)
    connection.sendall(head(path, len(too_much), caller.access_token))
    connection.sendall(too_much)  # a broken pipe, where the server does not listen
    answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer


async def test_a_client_that_leaves_while_it_sends_is_no_fault_of_ours(
    api_server: ApiServer, caller: Caller, stack: RunningStack
) -> None:
    log_file = stack.state_dir / "logs" / "api.log"
    already = log_file.stat().st_size
    with connect(api_server) as connection:
        connection.sendall(head("/v1/workspaces", 1001, caller.access_token) + b"{")

    def lines() -> list[dict[str, object]]:
        whole, _, _ = log_file.read_bytes()[already:].rpartition(b"\n")  # the last line may still be on its way
        raw = whole.splitlines()
        return [line for line in map(json.loads, raw) if line["event"] != "request" or line["bytes_in"] == 1]

    async def access_line_is_there() -> bool:
        return any(line["event"] == "request" for line in lines())

    await eventually(access_line_is_there)
    assert not [line for line in lines() if line["level"] == "error"]
