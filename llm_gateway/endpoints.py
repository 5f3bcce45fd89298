"""The gateway's addresses, and the one place where an error becomes an answer.

A plain ASGI application: a framework's request and response objects cost more than the whole of a call's own work here,
and its streaming response hides the client's disconnect behind a cancelled generator (docs/decisions/0070).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from core.asgi import Receive, Scope, Send
from core.errors import ButtressError, InternalFault, MethodNotAllowed, NotFound
from core.logging import get_logger
from core.request_id import HEADER, new_request_id
from llm_gateway.client import Client
from llm_gateway.model_list import answer_models
from llm_gateway.pipeline import Pipeline
from llm_gateway.wire.anthropic_dialect import ANTHROPIC
from llm_gateway.wire.anthropic_messages import COUNT_TOKENS, MESSAGES
from llm_gateway.wire.format import Dialect, Format
from llm_gateway.wire.openai_chat import CHAT
from llm_gateway.wire.openai_dialect import OPENAI
from llm_gateway.wire.openai_embeddings import EMBEDDINGS
from llm_gateway.wire.openai_responses import RESPONSES

log = get_logger(__name__)

MOUNTED_AT: Final = "/llm"
_MODELS: Final = "/v1/models"
# Anthropic's SDKs send it with everything, whatever they ask for.
_ANTHROPICS_OWN: Final = b"anthropic-version"
# Every address that answers calls (POST); a new format is a line here.
FORMATS: Final[Mapping[str, Format]] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT_TOKENS,
}


def dialect_of(scope: Scope) -> Dialect:
    """The dialect in which a request below the mount point is refused, whether or not its address exists."""
    format_ = FORMATS.get(_path(scope))
    if format_ is not None:
        return format_.dialect
    return ANTHROPIC if any(name == _ANTHROPICS_OWN for name, _ in scope["headers"]) else OPENAI


def render_error(error: ButtressError, request_id: str, scope: Scope) -> bytes:
    """The error body in the words of the address's format, for what is refused before the gateway sees it."""
    return dialect_of(scope).error_body(error, request_id)


class Endpoints:
    """Answers what is asked below the mount point."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request has an answer in its format's own shape, or its client has left."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "There are no web sockets here."})
            return
        client = Client(scope, receive, send)
        call_id = _call_id(scope, client)
        dialect = dialect_of(scope)
        client.standing += [(b"x-buttress-call-id", call_id.encode()), *dialect.id_headers(client.request_id)]
        try:
            await self._answer(scope, client, call_id)
            if client.gone:
                await asyncio.sleep(0)  # where a cancellation that came with the last byte is delivered, and ends
        except ButtressError as error:
            if not client.answer_began:
                await _answer_error(dialect, client, error)
        except asyncio.CancelledError:
            if not client.gone:
                raise  # the server's own wish
            _forget_cancellation()
        except Exception:  # a fault of ours: the log has it whole, the client only that it is ours
            log.exception("gateway_fault")
            if client.answer_began:
                raise
            await _answer_error(dialect, client, InternalFault())

    async def _answer(self, scope: Scope, client: Client, call_id: str) -> None:
        path = _path(scope)
        format_ = FORMATS.get(path)
        if format_ is not None:
            _require_method(scope, "POST")
            await self._pipeline.answer(format_, client, call_id)
        elif path == _MODELS:
            _require_method(scope, "GET")
            await answer_models(self._pipeline, scope, client)
        elif path.startswith(_MODELS + "/"):
            _require_method(scope, "GET")
            await answer_models(self._pipeline, scope, client, path.removeprefix(_MODELS + "/"))
        elif path.startswith("/v1/responses/resp"):
            raise NotFound("Responses are not kept here, so none can be fetched, cancelled or deleted.")
        else:
            raise NotFound(f"The gateway has no such address. It answers {_MODELS}, {', '.join(FORMATS)}.")


def _path(scope: Scope) -> str:
    """The path below the mount point: Litestar takes that away itself, and leaves a slash at the end."""
    path: str = scope["path"]
    return path.removeprefix(MOUNTED_AT).rstrip("/")


def _forget_cancellation() -> None:
    """The server need not know that the work was cancelled because its client left."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _require_method(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise MethodNotAllowed(f"This address answers {method} only.", details={"allow": method})


def _call_id(scope: Scope, client: Client) -> str:
    """The request's own id, unless its client chose it: a chosen id could be sent twice, and money hangs on it."""
    known = scope.get("state", {}).get("request_id")
    if isinstance(known, str) and client.header(HEADER.encode()) is None:
        return known
    return new_request_id()


async def _answer_error(dialect: Dialect, client: Client, error: ButtressError) -> None:
    headers = dialect.error_headers(error)
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", str((error.details or {})["allow"]).encode()))
    await client.answer_json(error.status, dialect.error_body(error, client.request_id), headers)
