"""What RFC 9110 asks of every address and Litestar 2.25 leaves out: HEAD wherever there is GET."""

from core.asgi import AsgiApp, Message, Receive, Scope, Send


class HeadAsGet:
    """A HEAD is answered as its GET would be, without the body."""

    def __init__(self, app: AsgiApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)
