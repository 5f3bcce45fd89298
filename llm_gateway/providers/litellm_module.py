"""litellm, imported once and silent: its SDK and its pure translations, never its proxy, router, callbacks or retries.

The import takes seconds and 190 MB, so it happens in a thread, when the first call needs it or once the process serves.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any, Final

from core.heap import keep_for_good

# Read before the import: without the first it downloads prices, without the second it reads .env files.
_ENVIRONMENT: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
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
    """litellm, for whoever awaits `get`; imported by the first one, shared by all."""

    def __init__(self) -> None:
        self._module: asyncio.Future[Litellm] | None = None

    async def get(self) -> Litellm:
        """litellm, imported and silent."""
        if self._module is None:
            self._module = asyncio.ensure_future(asyncio.to_thread(_import))
        return await asyncio.shield(self._module)


def _import() -> Litellm:
    os.environ.update(_ENVIRONMENT)
    sys.modules.setdefault(_PROXY, None)  # type: ignore[arg-type]  # None is how Python is told that it cannot be imported
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
    _forbid_second_attempts()
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


def _forbid_second_attempts() -> None:
    """A connection that broke is not asked again: the provider may have done the work, and would be paid twice."""
    handler = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler

    async def give_up(*_: object, **__: object) -> None:
        raise sys.exc_info()[1] or RuntimeError("asked for a second attempt without a failed first one")

    handler.single_connection_post_request = give_up
