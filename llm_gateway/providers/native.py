"""Any server that speaks the client's own format: the request goes as it came, the answer's bytes are not read here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from yarl import URL

from core.http1_connection import Answer, ConnectionLost
from core.provider_http import CannotConnect, Origin, ProviderHttp
from llm_gateway.providers.contract import FailureKind, ProviderCall, ProviderFailure
from llm_gateway.providers.rejections import RETRY_HEADERS, failure_from_answer

if TYPE_CHECKING:
    from llm_gateway.catalog import Deployment
    from llm_gateway.wire.format import Endpoint

# Of a refusal only a known code and the name of a field are read; more than this is not worth waiting for.
_MAX_ERROR_BYTES: Final = 64 * 1024


class NativeAnswer:
    """An answer that has begun; see ProviderAnswer."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def read(self) -> bytes:
        try:
            return await self._answer.read()
        except ConnectionLost as error:
            raise ProviderFailure(FailureKind.LOST, self._answer.status) from error

    def unread(self) -> bytes:
        return self._answer.unread()

    def abort(self) -> None:
        self._answer.close()

    def reported(self) -> None:
        """All that is said stands in the bytes."""


# The version in which the client speaks; requests in Anthropic's format always carry it themselves.
_WITH_EACH_CALL: Final = "anthropic-version"


@dataclass(frozen=True, slots=True)
class _Target:
    """What every call of one deployment at one endpoint has in common; `head` is without what each call adds."""

    origin: Origin
    head: bytes
    connect_timeout_s: float


class NativeProvider:
    """Reaches every deployment at the endpoints that it speaks itself."""

    def __init__(self, http: ProviderHttp) -> None:
        self._http = http
        self._targets: dict[tuple[str, Endpoint], _Target] = {}  # as many as the catalogue has, at most

    async def ready(self) -> None:
        """Nothing is needed."""

    async def open(self, call: ProviderCall) -> NativeAnswer:
        target = self._target(call.deployment, call.endpoint)
        head = target.head + _lines(
            {
                "accept": "text/event-stream" if call.stream else "application/json",
                "x-client-request-id": call.call_id,
                **call.headers,
            }
        )
        try:
            answer = await self._http.post(
                target.origin,
                head,
                orjson.dumps(call.deployment.fitted(call.endpoint, call.body)),
                connect_timeout_s=target.connect_timeout_s,
            )
        except CannotConnect as error:
            raise ProviderFailure(FailureKind.UNREACHABLE) from error
        except ConnectionLost as error:
            raise ProviderFailure(FailureKind.LOST) from error
        if answer.status == 200:
            return NativeAnswer(answer)
        raise await _refusal(answer, call)

    def _target(self, deployment: Deployment, endpoint: Endpoint) -> _Target:
        known = self._targets.get((deployment.id, endpoint))
        if known is None:
            url = URL(deployment.native[endpoint])
            known = self._targets[deployment.id, endpoint] = _Target(
                origin=Origin(url.raw_host or "", url.port or 443, tls=url.scheme == "https"),
                head=b"POST %s HTTP/1.1\r\n" % url.raw_path_qs.encode() + _lines(_headers(deployment, url)),
                connect_timeout_s=deployment.timeouts.connect_s,
            )
        return known


def _headers(deployment: Deployment, url: URL) -> dict[str, str]:
    return {
        "host": url.host_port_subcomponent or "",
        "content-type": "application/json",
        "accept-encoding": "identity",  # the bytes are passed on; unpacking and packing them again buys nothing
        "user-agent": "buttress-gateway",
        **{name: value for name, value in deployment.headers.items() if name != _WITH_EACH_CALL},
    }


def _lines(headers: Mapping[str, str]) -> bytes:
    """Raises: ValueError for what would be read as another header or request."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("A header holds the end of a line.")
    return lines.encode("latin-1")


async def _refusal(answer: Answer, call: ProviderCall) -> ProviderFailure:
    raw = b""
    try:
        async with asyncio.timeout(call.deployment.timeouts.connect_s):
            while len(raw) < _MAX_ERROR_BYTES and (piece := await answer.read()):
                raw += piece
    except (ConnectionLost, TimeoutError):
        raw = b""
    finally:
        answer.close()
    told = {name: value for name in RETRY_HEADERS if (value := answer.header(name.encode())) is not None}
    return failure_from_answer(answer.status, told, raw, sent=call.body)
