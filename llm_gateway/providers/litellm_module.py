"""litellm, imported once and silent: its SDK and its pure translations, never its proxy, router, callbacks or retries.

The import takes seconds and 190 MB, so it happens in a thread, when the first call needs it or once the process serves.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any, Final

from core.heap import keep_for_good
from llm_gateway.providers.litellm_http import tame

# Read before the import: without the first it downloads prices, without the second it reads .env files.
_ENVIRONMENT: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
_CLOSE_S: Final = 1.0
_LOGGERS: Final = ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router", "litellm")
# Looked for by translations that are asked for on their own; where it is installed, it would start a server's parts.
_PROXY: Final = "litellm.proxy.proxy_server"


@dataclass(frozen=True, slots=True)
class Litellm:
    """What we use of it. Any: modules without types."""

    sdk: Any
    messages: Any
    messages_stream: Any
    responses: Any
    responses_stream: Any


class LitellmModule:
    """litellm, for whoever awaits `get`; imported by the first one, shared by all. Where that failed, tried again."""

    def __init__(self) -> None:
        self._module: asyncio.Future[Litellm] | None = None

    async def get(self) -> Litellm:
        """litellm, imported and silent. Raises: whatever the import raised."""
        if self._module is None or _has_failed(self._module):
            self._module = asyncio.ensure_future(asyncio.to_thread(_import))
        return await asyncio.shield(self._module)

    async def aclose(self) -> None:
        """No connection that litellm opened is left; harmless where it was never imported."""
        if self._module is None or _has_failed(self._module):
            return
        sdk = (await self._module).sdk
        others = asyncio.all_tasks()
        await sdk.close_litellm_async_clients()
        sdk.in_memory_llm_clients_cache.flush_cache()
        closing = asyncio.all_tasks() - others  # what its clients' finalizers have begun
        if closing:
            await asyncio.wait(closing, timeout=_CLOSE_S)


def _has_failed(module: asyncio.Future[Litellm]) -> bool:
    return module.done() and (module.cancelled() or module.exception() is not None)


def _import() -> Litellm:
    try:
        return _import_and_silence()
    except BaseException:
        # Python forgets the one module that failed, and keeps those that know it: the next try would mix two copies.
        for name in [name for name in sys.modules if name.partition(".")[0] == "litellm"]:
            del sys.modules[name]
        raise


def _import_and_silence() -> Litellm:
    os.environ.update(_ENVIRONMENT)
    sys.modules.setdefault(_PROXY, None)  # type: ignore[arg-type]  # None is how Python is told that it cannot be imported
    warnings.filterwarnings("ignore", message=".*`ReadOnly` qualifier", category=UserWarning)  # its types in pydantic
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    litellm.drop_params = False
    litellm.modify_params = False
    litellm.num_retries = 0
    litellm.cache = None
    litellm.turn_off_message_logging = True
    for hooks in ("callbacks", "input_callback", "success_callback", "failure_callback", "service_callback",
                  "_async_success_callback", "_async_failure_callback"):  # fmt: skip
        setattr(litellm, hooks, [])
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.CRITICAL + 1)  # its warnings and errors quote requests, answers and addresses
    tame(importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler)
    adapters = "litellm.llms.anthropic.pass_through.adapters"
    bridge = "litellm.responses.litellm_completion_transformation"
    module = Litellm(
        sdk=litellm,
        messages=importlib.import_module(f"{adapters}.transformation"),
        messages_stream=importlib.import_module(f"{adapters}.streaming_iterator"),
        responses=importlib.import_module(f"{bridge}.transformation"),
        responses_stream=importlib.import_module(f"{bridge}.streaming_iterator"),
    )
    keep_for_good()
    return module
