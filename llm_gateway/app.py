"""The gateway alone, as one ASGI application: `create_app`, for `python -m llm_gateway`."""

from __future__ import annotations

from typing import Any, cast

from litestar import Litestar, Request, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler, asgi
from litestar.types import ASGIApp

from core.asgi import AsgiApp, Edge, Scope
from core.cors import Cors
from core.errors import ButtressError, MethodNotAllowed, NotFound
from core.logging import configure_logging
from core.redaction import protect
from core.settings import Settings, load_settings
from llm_gateway.endpoints import MOUNTED_AT, render_error
from llm_gateway.gateway import Gateway, create_gateway
from llm_gateway.metrics_endpoint import METRICS_AT


def create_app(settings: Settings | None = None) -> AsgiApp:
    """The gateway below /llm, beside `/health/live` and `/health/ready`, and METRICS_AT where it has a token.

    Raises: SettingsInvalid, CatalogInvalid.
    """
    settings = settings or load_settings()
    configure_logging(settings.log_level)
    protect(*settings.secrets())
    gateway = create_gateway(settings)
    litestar = Litestar(
        # Litestar types the same ASGI messages more narrowly than the specification does.
        route_handlers=[*_mounts(gateway), live, ready],
        lifespan=[lambda _app: gateway.lifespan()],
        state=State({"gateway": gateway}),
        exception_handlers={NotFound.status: _nothing_here, MethodNotAllowed.status: _nothing_here},
        openapi_config=None,
        logging_config=None,
    )
    edge = Edge(
        cast("AsgiApp", litestar),
        max_body_bytes=settings.max_body_bytes,
        production=settings.is_production,
        render_error=render_error,
        is_leaving=gateway.is_leaving,
    )
    return Cors(edge, origins=settings.cors_origins)


def _mounts(gateway: Gateway) -> list[ASGIRouteHandler]:
    apps = {MOUNTED_AT: gateway.serve, METRICS_AT: gateway.metrics_app()}
    mounted = {path: cast("ASGIApp", app) for path, app in apps.items() if app is not None}
    return [asgi(path, is_mount=True, copy_scope=True)(app) for path, app in mounted.items()]


@get("/health/live", sync_to_thread=False)
def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@get("/health/ready")
async def ready(state: State) -> Response[dict[str, str]]:
    """Calls can be served: 200; or cannot: 503 and the reason."""
    reason = await cast("Gateway", state["gateway"]).unready_reason()
    if reason is None:
        return Response({"status": "ready"})
    return Response({"status": "unready", "reason": reason}, status_code=503, headers={"retry-after": "1"})


# Any: Litestar's slots for user, auth and state, which nobody looks at here.
def _nothing_here(request: Request[Any, Any, Any], refusal: HTTPException) -> Response[bytes]:
    """What Litestar refuses by itself (an unknown address, a method) is said in the words of the caller's format."""
    error: ButtressError = MethodNotAllowed()
    if refusal.status_code == NotFound.status:
        error = NotFound(
            f"There is nothing here. The gateway is at {MOUNTED_AT}: that is the base URL for Anthropic's SDK, and"
            f" {MOUNTED_AT}/v1 for OpenAI's."
        )
    request_id = str(request.scope["state"]["request_id"])
    body = render_error(error, request_id, cast("Scope", request.scope))
    headers = dict(refusal.headers or {})
    return Response(body, status_code=error.status, headers=headers, media_type="application/json")
