"""Any server that speaks the client's own format: the request goes as it came, the answer's bytes are not read here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
import orjson
from yarl import URL

from llm_gateway.providers.contract import FailureKind, ProviderCall, ProviderFailure
from llm_gateway.providers.rejections import failure_from_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_gateway.catalog import Deployment
    from llm_gateway.wire.format import Endpoint

# Of a refusal only a known code and the name of a field are read; more than this is not worth waiting for.
_MAX_ERROR_BYTES: Final = 64 * 1024


class NativeAnswer:
    """An answer that has begun; see ProviderAnswer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def read(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderFailure(FailureKind.LOST, self._response.status) from error

    def abort(self) -> None:
        # close() drops the connection, so that the provider notices; release() would wait for the rest of the stream.
        self._response.close()


@dataclass(frozen=True, slots=True)
class _Target:
    """What every call of one deployment at one endpoint has in common."""

    url: URL
    headers: Mapping[str, str]
    timeout: aiohttp.ClientTimeout


class NativeProvider:
    """Reaches every deployment at the endpoints that it speaks itself, over one shared session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._targets: dict[tuple[str, Endpoint], _Target] = {}  # as many as the catalogue has, at most

    async def open(self, call: ProviderCall) -> NativeAnswer:
        target = self._target(call.deployment, call.endpoint)
        try:
            response = await self._session.post(
                target.url,
                data=orjson.dumps(call.deployment.fitted(call.endpoint, call.body)),
                headers={
                    **target.headers,
                    "accept": "text/event-stream" if call.stream else "application/json",
                    "x-client-request-id": call.call_id,
                    **call.headers,
                },
                allow_redirects=False,  # a redirect would carry the key to whoever it names
                timeout=target.timeout,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ProviderFailure(FailureKind.UNREACHABLE) from error
        except TimeoutError as error:
            raise ProviderFailure(FailureKind.TIMED_OUT) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderFailure(FailureKind.LOST) from error
        if response.status == 200:
            return NativeAnswer(response)
        raise await _refusal(response, call)

    def _target(self, deployment: Deployment, endpoint: Endpoint) -> _Target:
        known = self._targets.get((deployment.id, endpoint))
        if known is None:
            known = self._targets[deployment.id, endpoint] = _Target(
                url=URL(deployment.native[endpoint]),
                headers=_headers(deployment),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=deployment.timeouts.connect_s,
                    sock_connect=deployment.timeouts.connect_s,
                    sock_read=None,
                ),
            )
        return known


def _headers(deployment: Deployment) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "accept-encoding": "identity",  # the bytes are passed on; unpacking and packing them again buys nothing
        "user-agent": "buttress-gateway",
        **deployment.headers,
    }


async def _refusal(response: aiohttp.ClientResponse, call: ProviderCall) -> ProviderFailure:
    try:
        async with asyncio.timeout(call.deployment.timeouts.connect_s):
            raw = await response.content.read(_MAX_ERROR_BYTES)
    except (aiohttp.ClientError, TimeoutError):
        raw = b""
    finally:
        response.close()
    return failure_from_answer(response.status, response.headers.get("retry-after"), raw, sent=call.body)
