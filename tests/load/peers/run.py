"""One run over all gateways: the same requests, the same clients, one gateway at a time."""

import base64
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass

import orjson

from stack.config import HOST
from tests.load.generator import Job
from tests.load.measure import Measured, http_request, measure
from tests.load.peers import gateways
from tests.load.peers.gateways import Peer
from tests.load.processes import ProcessTree
from tests.load.subjects import CHUNKS_PER_STREAM, MODEL, Subjects
from tests.support.fake_provider import Match, Step

SLOW_STREAM = "bench-slow-stream"
PEERS = ("tensorzero", "limits", "portkey", "litellm")
PROVIDER, OURS = "bare provider", "Buttress"
_CHUNK_EVERY_S = 0.1
_MESSAGES = [{"role": "user", "content": "Say in one sentence what a buttress is, please."}]
_CHAT = "/v1/chat/completions"
# Whatever a gateway does to the JSON around it, the first token's text arrives.
_FIRST_TOKEN = base64.b64encode(b"word0").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured. `seconds` is for each row; streams end by count."""

    clients: tuple[int, ...]
    seconds: float
    streams: int
    peers: tuple[str, ...] = PEERS


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one gateway with so many clients, and what it did besides passing on."""

    measured: Measured
    what_is_on: str
    is_stream: bool = False


class Run:
    """Ours is measured first and last, so that a drift of the machine shows."""

    def __init__(self, subjects: Subjects, extent: Extent) -> None:
        self._subjects = subjects
        self._extent = extent
        self._rows: list[Row] = []

    async def all(self) -> list[Row]:
        """For each gateway a row a number of clients, then one for its streams."""
        self._subjects.provider.script(
            Step(
                match=Match(model=SLOW_STREAM),
                times=0,
                output_tokens=CHUNKS_PER_STREAM,
                delay_between_chunks_s=_CHUNK_EVERY_S,
            )
        )
        provider = Peer(name=PROVIDER, what_is_on="", port=self._subjects.provider_address[1], path=_CHAT, children=())
        await self._gateway(provider)
        await self._ours(OURS)
        for name in self._extent.peers:
            with self._start(name) as peer:
                await self._gateway(peer)
        await self._ours(f"{OURS}, again")
        return self._rows

    def _start(self, name: str) -> AbstractContextManager[Peer]:
        stack, provider, models = self._subjects.stack, self._subjects.provider, (MODEL, SLOW_STREAM)
        if name == "litellm":
            return gateways.litellm(stack, provider, models)
        if name == "portkey":
            return gateways.portkey(stack, provider)
        return gateways.tensorzero(stack, provider, models, limits=name == "limits")

    async def _gateway(self, peer: Peer) -> None:
        parts = {child.part.name: ProcessTree(child.process.pid) for child in peer.children}

        def requests(model: str, *, stream: bool = False) -> tuple[str, ...]:
            return tuple(
                http_request(
                    "POST",
                    peer.path,
                    HOST,
                    {"authorization": "Bearer none"} | dict(peer.headers),
                    _chat(peer.model_prefix + model, stream=stream, more=peer.body_fields(user)),
                )
                for user in range(len(self._subjects.callers))
            )

        await self._rows_of(peer, requests(MODEL), requests(SLOW_STREAM, stream=True), parts)

    async def _ours(self, name: str) -> None:
        parts = {part: self._subjects.parts[part] for part in ("api", "postgres")}

        def requests(model: str, *, stream: bool = False) -> tuple[str, ...]:
            body = _chat(model, stream=stream)
            return tuple(
                http_request("POST", f"/llm{_CHAT}", HOST, caller.headers, body) for caller in self._subjects.callers
            )

        on = "identity, six limits, durable usage in PostgreSQL"
        ours = Peer(name=name, what_is_on=on, port=self._subjects.api_address[1], path="", children=())
        await self._rows_of(ours, requests(MODEL), requests(SLOW_STREAM, stream=True), parts)

    async def _rows_of(
        self, peer: Peer, calls: tuple[str, ...], streams: tuple[str, ...], parts: dict[str, ProcessTree]
    ) -> None:
        extent = self._extent
        for clients in extent.clients:
            print(f"  {peer.name}, {clients} clients …", file=sys.stderr, flush=True)
            job = Job(host=HOST, port=peer.port, clients=clients, requests=calls, seconds=extent.seconds, warm_up_s=1.0)
            self._rows.append(Row(await measure(peer.name, job, parts), peer.what_is_on))
        print(f"  {peer.name}, {extent.streams} streams …", file=sys.stderr, flush=True)
        job = Job(
            host=HOST,
            port=peer.port,
            clients=extent.streams,
            requests=streams,
            seconds=300.0,
            requests_per_client=1,
            first_token=_FIRST_TOKEN,
        )
        self._rows.append(Row(await measure(peer.name, job, parts), peer.what_is_on, is_stream=True))


def _chat(model: str, *, stream: bool = False, more: dict[str, object] | None = None) -> bytes:
    body = {"model": model, "stream": stream, "max_tokens": 2 * CHUNKS_PER_STREAM, "messages": _MESSAGES}
    return orjson.dumps({**body, **(more or {})})
