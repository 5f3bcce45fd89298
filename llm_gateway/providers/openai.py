"""Any server that speaks OpenAI's format: the request is sent as it came, the answer's bytes are handed on unread."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson

from llm_gateway.providers.contract import FailureKind, ProviderCall, ProviderFailure
from llm_gateway.providers.rejections import failure_from_answer

# Of a refusal only a known code and the name of a field are read; more than this is not worth waiting for.
_MAX_ERROR_BYTES = 64 * 1024


class OpenAIAnswer:
    """An OpenAI-compatible answer that has begun; see ProviderAnswer."""

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


class OpenAIProvider:
    """Reaches every deployment whose protocol is `openai`, over one shared session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def open(self, call: ProviderCall) -> OpenAIAnswer:
        deployment = call.deployment
        try:
            response = await self._session.post(
                f"{deployment.base_url}/chat/completions",
                data=orjson.dumps(call.body),
                headers=_headers(call),
                allow_redirects=False,  # a redirect would carry the key to whoever it names
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=deployment.timeouts.connect_s,
                    sock_connect=deployment.timeouts.connect_s,
                    sock_read=None,
                ),
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ProviderFailure(FailureKind.UNREACHABLE) from error
        except TimeoutError as error:
            raise ProviderFailure(FailureKind.TIMED_OUT) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderFailure(FailureKind.LOST) from error
        if response.status == 200:
            return OpenAIAnswer(response)
        raise await _refusal(response, call)


def _headers(call: ProviderCall) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if call.stream else "application/json",
        "accept-encoding": "identity",  # the bytes are passed on; unpacking and packing them again buys nothing
        "user-agent": "buttress-gateway",
        "x-client-request-id": call.call_id,
    }
    key = call.deployment.api_key
    if key is not None:
        headers["authorization"] = f"Bearer {key.get_secret_value()}"
    return headers


async def _refusal(response: aiohttp.ClientResponse, call: ProviderCall) -> ProviderFailure:
    try:
        async with asyncio.timeout(call.deployment.timeouts.connect_s):
            raw = await response.content.read(_MAX_ERROR_BYTES)
    except (aiohttp.ClientError, TimeoutError):
        raw = b""
    finally:
        response.close()
    return failure_from_answer(response.status, response.headers.get("retry-after"), raw, sent=call.body)
