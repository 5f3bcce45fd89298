"""The gateway alone, as one ASGI application: `create_app`, for `python -m llm_gateway`."""

from __future__ import annotations

from typing import cast

from litestar import Litestar, Response, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.handlers import ASGIRouteHandler, asgi
from litestar.types import ASGIApp

from core.asgi import AsgiApp, Edge
from core.logging import configure_logging
from core.redaction import protect
from core.settings import Settings, load_settings
from llm_gateway.callers import WORKSPACE_HEADER
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
        cors_config=_cors(settings),
        openapi_config=None,
        logging_config=None,
    )
    return Edge(
        cast("AsgiApp", litestar),
        max_body_bytes=settings.max_body_bytes,
        production=settings.is_production,
        render_error=render_error,
        is_leaving=gateway.is_leaving,
    )


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


def _cors(settings: Settings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST"],
        allow_headers=[
            "authorization",
            "content-type",
            "x-api-key",
            WORKSPACE_HEADER,
            "anthropic-version",
            "anthropic-beta",
            "x-buttress-cache",
        ],
        expose_headers=[
            "x-request-id",
            "x-buttress-call-id",
            "x-buttress-cost-usd",
            "x-buttress-overhead-ms",
            "x-buttress-cache",
            "retry-after",
        ],
    )
