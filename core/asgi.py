"""The outermost layer of both services: what holds for every request, whatever answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from core.errors import ButtressError

# ASGI's own types are dictionaries of anything: https://asgi.readthedocs.io/en/latest/specs/main.html
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
RenderError = Callable[[ButtressError, str, Scope], bytes]


def render_envelope(error: ButtressError, request_id: str, scope: Scope) -> bytes:
    """The API's failure envelope as JSON."""
    return orjson.dumps(error.body(request_id), default=str)


class Edge:
    """Wraps a whole ASGI application: request id, security headers, body limit, access log, no fault without an answer.

    Sets `scope["state"]["request_id"]` and `request_id_var`. An Edge inside an Edge passes straight through.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        max_body_bytes: int = 10 * 1024 * 1024,
        production: bool = False,
        render_error: RenderError = render_envelope,
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.production = production
        self.render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
