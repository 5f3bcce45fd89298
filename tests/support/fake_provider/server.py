"""The fake provider put together: which path speaks which format, the control routes, the two listeners."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict

import orjson

from tests.support.fake_provider.answer import JsonObject
from tests.support.fake_provider.anthropic_messages import COUNT_TOKENS, MESSAGES
from tests.support.fake_provider.bill import Ledger, SeenRequest
from tests.support.fake_provider.http_server import Connection, Request
from tests.support.fake_provider.modes import MODES, step_for_model
from tests.support.fake_provider.openai_chat import CHAT
from tests.support.fake_provider.openai_embeddings import EMBEDDINGS
from tests.support.fake_provider.openai_errors import error_body
from tests.support.fake_provider.openai_responses import RESPONSES
from tests.support.fake_provider.play import Gate, Play
from tests.support.fake_provider.steps import Script, ScriptInvalid, Step, step_from_json
from tests.support.fake_provider.wire import Format, RequestInvalid

FORMATS: dict[str, Format] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT_TOKENS,
}
_ORDINARY = Step()
_CREATED_S = 1_763_683_200
_MODEL_IDS = ("fake-model", *(f"fake/{name}" for name in MODES if not any(sign in name for sign in "NT")))


class FakeProvider:
    """One fake provider: its script, its bill, and the handler of every request."""

    def __init__(self, *, keep: int) -> None:
        self.ledger = Ledger(keep)
        self.script = Script()
        self.gate = Gate(self.ledger)
        self._operators: set[Connection] = set()
        self._visitors: set[Connection] = set()
        self._door: asyncio.Server | None = None
        self._door_port = 0
        self._routes: dict[tuple[str, str], Callable[[Request, Connection], Awaitable[None]]] = {
            ("POST", "/_script"): self._take_script,
            ("POST", "/_release"): self._release,
            ("POST", "/_reset"): self._reset,
            ("POST", "/_door"): self._move_door,
            ("GET", "/_bill"): self._show_bill,
            ("GET", "/_requests"): self._show_requests,
            ("GET", "/_wait"): self._wait,
            ("GET", "/_modes"): self._show_modes,
        }

    async def listen(self, host: str, port: int) -> int:
        """The provider answers on this port (0: any free one) as well as on those it answers on already."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self.handle, self._operators), host, port, backlog=4096, reuse_address=True
        )
        return int(server.sockets[0].getsockname()[1])

    async def open_door(self, host: str, port: int) -> int:
        """As `listen`, on the port that `POST /_door` can close and open again."""
        loop = asyncio.get_running_loop()
        self._door = await loop.create_server(
            lambda: Connection(self.handle, self._visitors), host, port, backlog=4096, reuse_address=True
        )
        self._door_port = int(self._door.sockets[0].getsockname()[1])
        return self._door_port

    async def handle(self, request: Request, connection: Connection) -> None:
        """The request is answered as its path, its format and the script say."""
        style = FORMATS.get(request.path)
        if style is not None and request.method == "POST":
            await self._call(request, connection, style)
            return
        route = self._routes.get((request.method, request.path))
        if route is not None:
            await route(request, connection)
        elif request.path == "/_trap":
            self.ledger.counts.trapped += 1
            connection.write_json(200, {"trapped": self.ledger.counts.trapped})
        elif request.method == "GET" and request.path.startswith("/v1/models"):
            _show_models(request, connection)
        elif request.path == "/health":
            connection.write_json(200, {"status": "ok"})
        else:
            message = f"Unknown request URL: {request.method} {request.path}."
            connection.write_json(404, error_body(404, message))

    async def _call(self, request: Request, connection: Connection, style: Format) -> None:
        try:
            body = orjson.loads(request.body)
            call = style.read_call(body if isinstance(body, dict) else {})
        except (orjson.JSONDecodeError, RequestInvalid) as error:
            connection.write_json(400, style.error(400, str(error)))
            return
        step = self.script.take(path=request.path, model=call.model, user=call.user, headers=request.headers)
        seen = SeenRequest(
            number=0,
            method=request.method,
            path=request.path,
            headers=request.headers,
            body=request.body.decode(errors="replace"),
        )
        counts = self.ledger.counts
        line = self.ledger.open(path=request.path, model=call.model, user=call.user, stream=call.stream, seen=seen)
        await Play(
            request=request,
            connection=connection,
            style=style,
            call=call,
            step=step or step_for_model(call.model) or _ORDINARY,
            line=line,
            ledger=self.ledger,
            gate=self.gate,
            counts=counts,
        ).run()

    async def _take_script(self, request: Request, connection: Connection) -> None:
        try:
            raw = orjson.loads(request.body)
            listed = raw.get("steps") if isinstance(raw, dict) else None
            steps = [step_from_json(one) for one in (listed if isinstance(listed, list) else [raw])]
        except (orjson.JSONDecodeError, ScriptInvalid) as error:
            connection.write_json(400, {"error": str(error)})
            return
        self.script.append(steps)
        connection.write_json(200, {"queued": len(self.script)})

    async def _release(self, request: Request, connection: Connection) -> None:
        count = _body_of(request).get("count")
        connection.write_json(200, {"released": self.gate.release(count if isinstance(count, int) else None)})

    async def _reset(self, request: Request, connection: Connection) -> None:
        self.script.clear()
        self.gate.release(None)
        self.ledger.reset()
        connection.write_json(200, {"reset": True})

    async def _move_door(self, request: Request, connection: Connection) -> None:
        """`{"open": false}`: new connections are refused and those that exist are reset; true: answers again."""
        if _body_of(request).get("open") is True:
            if self._door is None:
                await self.open_door("127.0.0.1", self._door_port)
        elif self._door is not None:
            self._door.close()
            self._door = None
            for visitor in tuple(self._visitors):
                visitor.reset()
        connection.write_json(200, {"open": self._door is not None})

    async def _show_bill(self, request: Request, connection: Connection) -> None:
        connection.write_json(200, self.ledger.as_json())

    async def _show_requests(self, request: Request, connection: Connection) -> None:
        connection.write_json(200, {"requests": [asdict(seen) for seen in self.ledger.seen]})

    async def _show_modes(self, request: Request, connection: Connection) -> None:
        connection.write_json(200, {f"fake/{name}": what for name, what in MODES.items()})

    async def _wait(self, request: Request, connection: Connection) -> None:
        wanted = dict(request.query)
        timeout_s = float(wanted.pop("timeout_s", "10"))
        known = asdict(self.ledger.counts)
        if not wanted or not set(wanted) <= set(known) or not all(value.isdecimal() for value in wanted.values()):
            connection.write_json(400, {"error": f"Wait for a number of: {', '.join(known)}."})
            return
        reached = await self.ledger.wait({name: int(value) for name, value in wanted.items()}, timeout_s)
        connection.write_json(200 if reached else 408, asdict(self.ledger.counts))


def _body_of(request: Request) -> JsonObject:
    body = orjson.loads(request.body) if request.body else {}
    return body if isinstance(body, dict) else {}


def _show_models(request: Request, connection: Connection) -> None:
    """The list of models, or one of them, in Anthropic's shape for a client that sends `anthropic-version`."""
    shape = _anthropic_model if "anthropic-version" in request.headers else _openai_model
    name = request.path.removeprefix("/v1/models").strip("/")
    if name:
        connection.write_json(200, shape(name.replace("%2F", "/")))
    elif shape is _openai_model:
        connection.write_json(200, {"object": "list", "data": [shape(one) for one in _MODEL_IDS]})
    else:
        ends = {"first_id": _MODEL_IDS[0], "last_id": _MODEL_IDS[-1], "has_more": False}
        connection.write_json(200, {"data": [shape(one) for one in _MODEL_IDS], **ends})


def _openai_model(name: str) -> JsonObject:
    return {"id": name, "object": "model", "created": _CREATED_S, "owned_by": "fake-provider"}


def _anthropic_model(name: str) -> JsonObject:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2025-11-21T00:00:00Z",
        "lifecycle": "active",
    }


def refusing_socket(host: str) -> socket.socket:
    """A socket that holds a port on which every connection is refused: bound, never listening."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.bind((host, 0))
    return held
