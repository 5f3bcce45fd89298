"""What RFC 9110 asks of every address and Litestar 2.25 leaves out: HEAD beside GET, and a complete `Allow`."""

from typing import Final

from core.asgi import AsgiApp, Message, Receive, Scope, Send

# No route answers it, so Litestar's refusal lists every method that some route of the address does answer; its own
# answer to OPTIONS lists those of one route only.
_ANSWERED_BY_NO_ROUTE: Final = "BUTTRESS-ALLOW"


class AllMethods:
    """HEAD is answered as GET without the body, OPTIONS with the methods there are; `Allow` names both."""

    def __init__(self, app: AsgiApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["type"] == "http" else ""
        if method == "HEAD":
            await self.app({**scope, "method": "GET"}, receive, _without_body(_with_head_allowed(send)))
        elif method == "OPTIONS":
            await self.app({**scope, "method": _ANSWERED_BY_NO_ROUTE}, receive, _as_options(_with_head_allowed(send)))
        else:
            await self.app(scope, receive, _with_head_allowed(send))


def _without_body(send: Send) -> Send:
    async def send_without_body(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_without_body


def _as_options(send: Send) -> Send:
    """The refusal of a method becomes the list of methods; any other answer (there is no such address) stays."""
    refused = False

    async def send_as_options(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] == 405:
            refused = True
            message = {**message, "status": 204, "headers": [h for h in message["headers"] if h[0] == b"allow"]}
        elif refused:
            message = {**message, "body": b""}
        await send(message)

    return send_as_options


def _with_head_allowed(send: Send) -> Send:
    async def send_with_head_allowed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, _completed(value) if name == b"allow" else value) for name, value in message["headers"]]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_head_allowed


def _completed(allow: bytes) -> bytes:
    methods = {method.strip() for method in allow.split(b",")}
    return b", ".join(sorted(methods | {b"OPTIONS"} | ({b"HEAD"} if b"GET" in methods else set())))
