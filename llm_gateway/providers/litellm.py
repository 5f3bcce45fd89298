"""Every protocol but OpenAI's, translated by litellm's SDK: never its proxy, router, callbacks or retries.

Importing litellm takes seconds and 190 MB, so it happens when the first such call needs it, or in the background once
the process serves (`warm`), and not at all where the catalogue has no such deployment.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import httpx
import orjson

from core.logging import get_logger
from llm_gateway.providers.contract import FailureKind, ProviderCall, ProviderFailure
from llm_gateway.providers.rejections import KNOWN_CODES, failure_from_answer
from llm_gateway.settlement import DetachedTasks
from llm_gateway.wire.openai_answer import DONE
from llm_gateway.wire.sse import data_event

log = get_logger(__name__)

# Read before the import: without the first it downloads prices, without the second it reads .env files.
_ENVIRONMENT: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}

# litellm takes its own instructions from the same keyword arguments as the request; only these are a request's.
REQUEST_FIELDS: Final = frozenset(
    """
    messages stream stream_options temperature top_p n stop max_tokens max_completion_tokens presence_penalty
    frequency_penalty logit_bias user response_format seed tools tool_choice parallel_tool_calls logprobs top_logprobs
    reasoning_effort thinking functions function_call
    """.split()  # noqa: SIM905 -- one word a line reads worse
)
# OpenAI's housekeeping: another provider has no use for it, and leaving it out changes no answer.
_NO_USE_ELSEWHERE: Final = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "modalities", "verbosity"}
)


class LitellmAnswer:
    """An answer that litellm translates; see ProviderAnswer."""

    def __init__(self, response: Any, tasks: DetachedTasks, *, stream: bool) -> None:  # Any: litellm has no types
        self._response = response
        self._tasks = tasks
        self._stream: AsyncIterator[Any] | None = aiter(response) if stream else None
        self._ended = False

    async def read(self) -> bytes:
        if self._ended:
            return b""
        if self._stream is None:
            self._ended = True
            return bytes(self._response.model_dump_json(exclude_none=True).encode())
        try:
            chunk = await anext(self._stream)
        except StopAsyncIteration:
            self._ended = True
            return data_event(DONE)
        except Exception as error:  # whatever litellm raises within a stream, the stream is cut
            self._ended = True
            raise ProviderFailure(FailureKind.LOST) from error
        return data_event(orjson.dumps(_openai_chunk(chunk.model_dump(mode="json", exclude_none=True))))

    def abort(self) -> None:
        if self._stream is not None and not self._ended:
            self._ended = True
            self._tasks.start(_close(self._response), name="close litellm stream")


class LitellmProvider:
    """Asks in a provider's own words what it does not answer in the client's."""

    def __init__(self, tasks: DetachedTasks) -> None:
        self._tasks = tasks
        self._module: asyncio.Future[Any] | None = None  # Any: a module

    async def warm(self) -> None:
        """litellm is imported and silent."""
        await self._imported()

    async def open(self, call: ProviderCall) -> LitellmAnswer:
        litellm = await self._imported()
        deployment = call.deployment
        try:
            response = await litellm.acompletion(
                model=deployment.litellm_model,
                api_base=deployment.litellm_base_url,
                api_key=deployment.api_key.get_secret_value() if deployment.api_key else None,
                timeout=deployment.timeouts.total_s,
                num_retries=0,
                max_retries=0,
                **deployment.litellm_options,
                _skip_mcp_handler=True,  # else it looks for tool servers that the request may name, and would call them
                **_request_fields(call.body),
            )
        except Exception as error:
            raise _failure(error, call.body) from error
        return LitellmAnswer(response, self._tasks, stream=call.stream)

    async def _imported(self) -> Any:  # Any: a module
        if self._module is None:
            self._module = asyncio.ensure_future(asyncio.to_thread(_import_litellm))
        return await asyncio.shield(self._module)


def _import_litellm() -> Any:  # Any: a module
    os.environ.update(_ENVIRONMENT)
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = False
    litellm.num_retries = 0
    litellm.callbacks = []
    litellm.success_callback = []
    litellm.failure_callback = []
    litellm.turn_off_message_logging = True
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # its warnings quote requests and answers
    return litellm


def _request_fields(body: dict[str, Any]) -> dict[str, Any]:  # Any: the client's fields pass through as they are
    unknown = body.keys() - REQUEST_FIELDS - _NO_USE_ELSEWHERE - {"model"}
    if unknown:
        raise ProviderFailure(FailureKind.REJECTED, 400, code="unsupported_parameter", param=min(unknown))
    return {field: body[field] for field in REQUEST_FIELDS & body.keys() if body[field] is not None}


def _openai_chunk(chunk: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """The chunk as OpenAI sends it: usage stands in a chunk of its own, which has no choices."""
    if "usage" in chunk and not any(choice.get("delta") or choice.get("finish_reason") for choice in chunk["choices"]):
        chunk["choices"] = []
    return chunk


async def _close(response: Any) -> None:  # Any: litellm has no types
    await response.aclose()


def _failure(error: Exception, body: dict[str, Any]) -> ProviderFailure:
    """What litellm's exception means. Of its text only codes that we know are used."""
    if isinstance(error, ProviderFailure):
        return error
    name = type(error).__name__
    if name in {"Timeout", "APITimeoutError"}:
        return ProviderFailure(FailureKind.TIMED_OUT)
    if _never_connected(error):
        return ProviderFailure(FailureKind.UNREACHABLE)
    status = getattr(error, "status_code", None)
    if name == "APIConnectionError" or not isinstance(status, int):
        return ProviderFailure(FailureKind.LOST)
    code = {
        "ContextWindowExceededError": "context_length_exceeded",
        "ContentPolicyViolationError": "content_policy_violation",
        "UnsupportedParamsError": "unsupported_parameter",
    }.get(name, getattr(error, "code", None))
    raw = orjson.dumps({"error": {"code": code}}) if isinstance(code, str) and code in KNOWN_CODES else b""
    return failure_from_answer(status, _retry_after(error), raw, sent=body)


def _retry_after(error: Exception) -> str | None:
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or getattr(error, "litellm_response_headers", None) or {}
    value = headers.get("retry-after")
    return value if isinstance(value, str) else None


def _never_connected(error: BaseException | None) -> bool:
    """True when the chain of causes holds a refused, unresolved or timed out connection attempt."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | aiohttp.ClientConnectorError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
