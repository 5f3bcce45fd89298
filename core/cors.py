"""Cross-origin requests: an allow-list of exact origins, compared as text; everybody else gets no permission at all.

Both services allow the same, so that a page need not know whether the gateway runs alone.
"""

from typing import Final

from core.asgi import AsgiApp, Message, Receive, Scope, Send

_ALLOWED_METHODS: Final = b"GET, HEAD, POST, PATCH, DELETE"
_ALLOWED_HEADERS: Final = (
    b"authorization, content-type, if-match, idempotency-key, x-request-id, "
    b"x-api-key, x-buttress-workspace, x-buttress-cache, anthropic-version, anthropic-beta"
)
_EXPOSED_HEADERS: Final = (
    b"etag, location, retry-after, x-request-id, request-id, "
    b"x-buttress-call-id, x-buttress-cost-usd, x-buttress-overhead-ms, x-buttress-cache, x-buttress-model-note"
)
_PREFLIGHT_LIFETIME_S: Final = b"600"


class Cors:
    """Wraps everything, so that a refusal can be read by the page that caused it.

    Credentials are bearer tokens, which a page sends knowingly; cookies are never allowed across origins.
    """

    def __init__(self, app: AsgiApp, *, origins: tuple[str, ...]) -> None:
        self.app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = _header(scope, b"origin") if scope["type"] == "http" else None
        if origin is None:
            await self.app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method") is not None:
            await self._answer_preflight(origin, send)
        else:
            await self.app(scope, receive, self._permitting(origin, send))

    async def _answer_preflight(self, origin: bytes, send: Send) -> None:
        headers = [(b"vary", b"Origin"), (b"content-length", b"0")]
        if origin in self._origins:
            headers += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-methods", _ALLOWED_METHODS),
                (b"access-control-allow-headers", _ALLOWED_HEADERS),
                (b"access-control-max-age", _PREFLIGHT_LIFETIME_S),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def _permitting(self, origin: bytes, send: Send) -> Send:
        permission = [(b"vary", b"Origin")]
        if origin in self._origins:
            permission += [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED_HEADERS),
            ]

        async def send_with_permission(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *permission]}
            await send(message)

        return send_with_permission


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)
