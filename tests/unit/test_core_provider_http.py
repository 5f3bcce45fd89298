"""The client for providers, against servers that send every byte as the test says."""

import asyncio
import gzip
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.http1_connection import Answer, ConnectionLost
from core.provider_http import CannotConnect, Origin, ProviderHttp, TooManyConnections
from tests.support.eventually import eventually
from tests.support.stack import free_ports

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: provider\r\n"
BODY = b'{"model": "scripted"}'
SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nx-trailer: 1\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server:
    """Counts its connections, keeps what it was sent, and plays one script for each connection."""

    def __init__(self, play: Callable[["Server", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._play = play
        self.origin = Origin("127.0.0.1", 0, tls=False)
        self.connections = 0
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._play(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.gone.set()
            writer.close()

    async def request(self, reader: asyncio.StreamReader) -> None:
        """One whole request has been read."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        self.asked.set()


@asynccontextmanager
async def serving(
    play: Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    server = Server(play)
    async with await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls) as listening:
        server.origin = Origin("127.0.0.1", listening.sockets[0].getsockname()[1], tls=tls is not None)
        yield server


@asynccontextmanager
async def client(**options: int | float | ssl.SSLContext) -> AsyncIterator[ProviderHttp]:
    http = ProviderHttp(**options)  # type: ignore[arg-type]  # each test passes what its option takes
    try:
        yield http
    finally:
        http.close()


def again_and_again(answer: bytes) -> Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def play(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.request(reader)
            writer.write(answer)

    return play


def once(*pieces: bytes) -> Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """The pieces, each in a packet of its own, then the end of the connection."""

    async def play(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return play


async def ask(http: ProviderHttp, server: Server, body: bytes = BODY) -> Answer:
    return await http.post(server.origin, HEAD, body, connect_timeout_s=30)


async def whole(answer: Answer) -> bytes:
    pieces = []
    while piece := await answer.read():
        pieces.append(piece)
    return b"".join(pieces)


async def test_the_request_goes_out_as_it_was_given_with_its_length() -> None:
    async with serving(again_and_again(SIZED)) as server, client() as http:
        answer = await ask(http, server)
        assert (answer.status, answer.header(b"content-type")) == (200, "application/json")
        assert await whole(answer) == b"hello"
        assert await answer.read() == b""
        large = b"x" * 300_000
        await whole(await ask(http, server, large))
    assert server.requests[0] == HEAD + b"content-length: 21\r\n\r\n" + BODY
    assert server.requests[1].endswith(b"content-length: 300000\r\n\r\n" + large)


@pytest.mark.parametrize("raw", [SIZED, CHUNKED], ids=["sized", "chunked"])
async def test_an_answer_is_read_wherever_the_network_cuts_it(raw: bytes) -> None:
    for cut in range(1, len(raw)):
        async with serving(once(raw[:cut], raw[cut:])) as server, client() as http:
            assert await whole(await ask(http, server)) == b"hello"


@pytest.mark.parametrize("raw", [SIZED, CHUNKED], ids=["sized", "chunked"])
async def test_a_connection_carries_one_call_after_the_other(raw: bytes) -> None:
    async with serving(again_and_again(raw)) as server, client() as http:
        for _ in range(5):
            assert await whole(await ask(http, server)) == b"hello"
        assert (server.connections, len(http)) == (1, 1)


async def test_calls_at_the_same_time_have_connections_of_their_own() -> None:
    async with serving(again_and_again(CHUNKED)) as server, client() as http:
        answers = await asyncio.gather(*(ask(http, server) for _ in range(20)))
        assert [await whole(answer) for answer in answers] == [b"hello"] * 20
        assert server.connections == 20


async def test_an_answer_without_length_ends_with_its_connection_which_is_not_used_again() -> None:
    async with serving(once(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo")) as server, client() as http:
        assert await whole(await ask(http, server)) == b"hello"
        assert await whole(await ask(http, server)) == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize("header", [b"connection: close\r\n", b"Connection: Close\r\n"])
async def test_a_server_that_closes_is_asked_over_a_new_connection(header: bytes) -> None:
    raw = SIZED.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n")
    async with serving(again_and_again(raw)) as server, client() as http:
        for _ in range(3):
            assert await whole(await ask(http, server)) == b"hello"
        assert server.connections == 3


async def test_a_connection_the_server_closed_while_it_was_idle_is_not_used() -> None:
    async with serving(once(SIZED)) as server, client() as http:
        assert await whole(await ask(http, server)) == b"hello"
        await server.gone.wait()
        await eventually(lambda: open_at_most(http, 0))
        assert await whole(await ask(http, server)) == b"hello"
        assert server.connections == 2


async def test_a_connection_idle_for_too_long_is_closed_instead_of_used() -> None:
    async with serving(again_and_again(SIZED)) as server, client(keep_alive_s=0.0) as http:
        for _ in range(3):
            await whole(await ask(http, server))
        assert server.connections == 3


async def test_interim_answers_are_passed_over() -> None:
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SIZED
    async with serving(again_and_again(raw)) as server, client() as http:
        answer = await ask(http, server)
        assert (answer.status, answer.header(b"link"), await whole(answer)) == (200, None, b"hello")


async def test_compressed_bodies_are_inflated_though_nobody_asked_for_them() -> None:
    packed = gzip.compress(b"hello" * 1000)
    raw = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s" % (len(packed), packed)
    async with serving(again_and_again(raw)) as server, client() as http:
        assert await whole(await ask(http, server)) == b"hello" * 1000


BOMB = gzip.compress(b"\0" * 50_000_000)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nx-filler: " + b"x" * 70_000,
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello",
    ],
    ids=["nothing", "half a line", "half the headers", "no HTTP", "a false length", "brotli", "endless headers", "101"],
)
async def test_what_is_no_answer_is_a_lost_connection(raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(once(raw)) as server, client() as http:
        with pytest.raises(ConnectionLost):
            await ask(http, server)
        await eventually(lambda: open_at_most(http, 0))
    assert caplog.records == []  # the loop's own words would be a stack trace


@pytest.mark.parametrize(
    "endless", [b"0\r\nx-trailer: ", b"0\r\n", b"5;x="], ids=["a trailer", "trailers", "extension"]
)
async def test_what_comes_without_end_around_a_body_is_neither_kept_nor_waited_for(endless: bytes) -> None:
    async def play(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n" + endless)
        while not reader.at_eof():
            writer.write(b"x-trailer: 1\r\n" * 1000 if endless == b"0\r\n" else b"x" * 10_000)
            await writer.drain()

    async with serving(play) as server, client() as http:
        answer = await ask(http, server)
        assert await answer.read() == b"hello"
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(answer.read(), 10)
        assert answer.headers == {b"transfer-encoding": b"chunked"}


async def test_a_body_may_be_long_and_its_chunks_short() -> None:
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1;x=y\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    async with serving(again_and_again(raw)) as server, client() as http:
        assert len(await whole(await ask(http, server))) == 50_000


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nnot gzip",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB,
    ],
    ids=["too little", "no last chunk", "a chunk without bounds", "not gzip", "gzip bomb"],
)
async def test_a_body_that_does_not_come_to_its_end_is_a_lost_connection(raw: bytes) -> None:
    async with serving(once(raw)) as server, client() as http:
        with pytest.raises(ConnectionLost):
            await whole(await ask(http, server))


async def open_at_most(http: ProviderHttp, most: int) -> bool:
    return len(http) <= most


async def stall_after_headers(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await server.request(reader)
    writer.write(CHUNKED[:60])
    await reader.read()  # until the client leaves


async def say_nothing(server: Server, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await server.request(reader)
    await reader.read()


async def test_closing_an_answer_before_its_end_closes_the_connection_at_once() -> None:
    async with serving(stall_after_headers) as server, client() as http:
        answer = await ask(http, server)
        answer.close()
        await server.gone.wait()
        with pytest.raises(ConnectionLost):
            await whole(answer)


async def test_closing_an_answer_after_its_end_leaves_the_connection_to_whoever_has_it_now() -> None:
    async with serving(again_and_again(CHUNKED)) as server, client() as http:
        first = await ask(http, server)
        await whole(first)
        second = await ask(http, server)
        first.close()
        assert await first.read() == b""
        assert await whole(second) == b"hello"
        assert server.connections == 1


async def test_cancelling_a_call_that_has_no_answer_yet_closes_the_connection() -> None:
    async with serving(say_nothing) as server, client() as http:
        asking = asyncio.create_task(ask(http, server))
        await server.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await server.gone.wait()


async def test_a_reader_who_does_not_read_slows_the_server_down_and_loses_nothing() -> None:
    size = 20_000_000
    sent = 0

    async def flood(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await server.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with serving(flood) as server, client() as http:
        answer = await ask(http, server)
        before = -1
        while before != sent:  # until the server can send no more
            before = sent
            await asyncio.sleep(0.05)
        assert sent < size
        assert len(await whole(answer)) == size


async def test_what_a_server_sends_unasked_ends_its_connection_and_reaches_no_call() -> None:
    async def play(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(SIZED)
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(SIZED.replace(b"hello", b"spoof"))
        await server.request(reader)

    async with serving(play) as server, client() as http:
        assert await whole(await ask(http, server)) == b"hello"
        await eventually(lambda: open_at_most(http, 0))

    async with serving(again_and_again(SIZED + SIZED.replace(b"hello", b"spoof"))) as server, client() as http:
        for _ in range(3):
            assert await whole(await ask(http, server)) == b"hello"
        assert server.connections == 3


async def test_without_a_server_nothing_was_sent() -> None:
    async with client() as http:
        for host in ("127.0.0.1", "no-such-host.invalid", "a..b", "x" * 300):
            with pytest.raises(CannotConnect):
                await http.post(Origin(host, free_ports(1)[0], tls=False), HEAD, BODY, connect_timeout_s=2)
        assert len(http) == 0


async def test_a_server_that_does_not_accept_in_time_was_sent_nothing() -> None:
    context = ssl.create_default_context()
    async with serving(say_nothing) as server, client(tls_context=context) as http:
        silent = Origin(server.origin.host, server.origin.port, tls=True)  # waits for a request, not for a handshake
        with pytest.raises(CannotConnect):
            await http.post(silent, HEAD, BODY, connect_timeout_s=0.1)
        assert len(http) == 0


async def test_no_more_connections_are_made_than_allowed_and_idle_ones_make_room() -> None:
    async with (
        serving(stall_after_headers) as slow,
        serving(again_and_again(SIZED)) as quick,
        client(max_connections=2) as http,
    ):
        await whole(await ask(http, quick))
        held = [await ask(http, slow)]
        held.append(await ask(http, slow))
        with pytest.raises(TooManyConnections):
            await ask(http, quick)
        held[0].close()
        await eventually(lambda: open_at_most(http, 1))
        assert await whole(await ask(http, quick)) == b"hello"


async def test_tls_is_verified(tls_files: tuple[Path, Path]) -> None:
    certificate, key = tls_files
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    async with serving(again_and_again(CHUNKED), tls=server_side) as server:
        async with client(tls_context=ssl.create_default_context(cafile=str(certificate))) as http:
            for _ in range(2):
                assert await whole(await ask(http, server)) == b"hello"
            assert server.connections == 1
        async with client() as http:
            with pytest.raises(CannotConnect) as refused:
                await ask(http, server)
            assert isinstance(refused.value.__cause__, ssl.SSLCertVerificationError)


BEGUN = b"HTTP/1.1 200 OK\r\n"


def ends_tls(how: str, raw: bytes) -> Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Answers, and ends the connection with TLS's close_notify, without it, or with a reset."""

    async def play(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.request(reader)
        writer.write(raw)
        await writer.drain()
        if how == "reset":
            underneath = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
            underneath.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            underneath.close()
        if how != "close_notify":
            writer.transport.abort()

    return play


@pytest.mark.parametrize("how", ["close_notify", "no close_notify", "reset"])
@pytest.mark.parametrize(
    "raw",
    [
        BEGUN + b"content-length: 9\r\n\r\nhello",
        BEGUN + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        BEGUN + b"\r\nhello",
    ],
    ids=["sized", "chunked", "until the end"],
)
async def test_over_tls_a_body_that_was_cut_is_never_taken_for_a_whole_one(
    raw: bytes, how: str, tls_files: tuple[Path, Path]
) -> None:
    certificate, key = tls_files
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    client_side = ssl.create_default_context(cafile=str(certificate))
    async with serving(ends_tls(how, raw), tls=server_side) as server, client(tls_context=client_side) as http:
        if how == "close_notify" and raw == BEGUN + b"\r\nhello":
            assert await whole(await ask(http, server)) == b"hello"
            return
        with pytest.raises(ConnectionLost):
            await whole(await ask(http, server))


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, signed by itself."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import IPv4Address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"
