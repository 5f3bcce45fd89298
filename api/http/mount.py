"""Another ASGI application below a path of ours, without our routing, guards or error shapes in its way."""

from core.asgi import AsgiApp, Receive, Scope, Send


def is_below(prefix: str, scope: Scope) -> bool:
    """The request is for the prefix itself or something below it."""
    path: str = scope.get("path", "")
    return path == prefix or path.startswith(f"{prefix}/")


def mount(prefix: str, app: AsgiApp, *, beside: AsgiApp) -> AsgiApp:
    """HTTP requests below the prefix go to `app`, their path as it is; all else, lifespan too, to `beside`."""

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = app if scope["type"] == "http" and is_below(prefix, scope) else beside
        await chosen(scope, receive, send)

    return dispatch
