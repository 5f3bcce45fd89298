"""GET /metrics: the figures, for whoever has the operator's token, and for nobody else."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Final

import orjson

from core.asgi import Receive, Scope, Send
from core.errors import ButtressError, InternalFault, MethodNotAllowed, NotAuthenticated, NotFound
from core.logging import get_logger
from llm_gateway.metrics import CONTENT_TYPE, Metrics

log = get_logger(__name__)

METRICS_AT: Final = "/metrics"


class WrongMetricsToken(NotAuthenticated):
    """The request does not carry the token that the operator gave to Prometheus."""

    default_code = "metrics_token_invalid"
    default_message = "Send the value of BUTTRESS_METRICS_TOKEN as `Authorization: Bearer <token>`."


class MetricsEndpoint:
    """A plain ASGI application that answers METRICS_AT; errors are in the API's envelope, whoever mounts it."""

    def __init__(self, metrics: Metrics, *, token: str, sample: Callable[[], Awaitable[None]]) -> None:
        self._metrics = metrics
        self._token = token.encode()
        self._sample = sample

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request is answered: 200, 401, 404, 405, or 500 for a fault, which is logged."""
        try:
            self._check(scope)
            await self._sample()
            body = self._metrics.render()
        except ButtressError as error:
            await _answer_error(scope, send, error)
        except Exception:  # a fault of ours must not look like a service that is down
            log.exception("metrics_fault")
            await _answer_error(scope, send, InternalFault())
        else:
            await _answer(send, 200, body, [(b"content-type", CONTENT_TYPE.encode())])

    def _check(self, scope: Scope) -> None:
        """Raises: NotFound, WrongMetricsToken, MethodNotAllowed."""
        if scope["type"] != "http" or scope["path"].rstrip("/") not in {METRICS_AT, ""}:
            raise NotFound
        scheme, _, token = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise WrongMetricsToken
        if scope["method"] != "GET":
            raise MethodNotAllowed("This address answers GET only.")


async def _answer_error(scope: Scope, send: Send, error: ButtressError) -> None:
    body = orjson.dumps(error.body(str(scope.get("state", {}).get("request_id", ""))), default=str)
    headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", b"GET"))
    await _answer(send, error.status, body, [(b"content-type", b"application/json"), *headers])


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
