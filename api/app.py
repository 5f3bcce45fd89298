"""The API's only wiring: every part is made here, handed to whoever needs it, and closed here."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide

from api.auth.routes import ROUTER as AUTH
from api.auth.service import SignInGuards
from api.documentation.routes import openapi_config, openapi_json
from api.health.routes import ROUTER as HEALTH
from api.health.service import Readiness, supabase_checks
from api.http.body import StrictRequest
from api.http.caller import provide_caller, require_caller
from api.http.errors import EXCEPTION_HANDLERS
from api.http.flood import FloodGuard
from api.http.methods import AllMethods
from api.http.mount import is_below, mount
from api.http.pagination import provide_page
from api.keys.routes import ROUTER as KEYS
from api.limits.routes import ROUTER as LIMITS
from api.llm_settings.routes import ROUTER as LLM_SETTINGS
from api.me.routes import ROUTER as ME
from api.members.routes import ROUTER as MEMBERS
from api.services import Services, SharedServices
from api.supabase.auth import SupabaseAuth
from api.usage.routes import ROUTER as USAGE
from api.workspaces.routes import ROUTER as WORKSPACES
from core.asgi import AsgiApp, Edge, Scope, render_envelope
from core.cors import Cors
from core.errors import ButtressError
from core.http import supabase_client
from core.logging import configure_logging
from core.redaction import protect
from core.settings import Settings, load_settings
from core.tokens import TokenVerifier
from llm_gateway import METRICS_AT, MOUNTED_AT, Gateway, KeyRing, create_gateway
from llm_gateway import render_error as render_gateway_error


def create_app(settings: Settings | None = None) -> AsgiApp:
    """The whole API as one ASGI application; nothing is connected before its lifespan begins.

    Raises: SettingsInvalid, CatalogInvalid, naming everything that is missing or wrong.
    """
    settings = settings or load_settings()
    configure_logging(settings.log_level)
    protect(*settings.secrets())
    gateway = create_gateway(settings)
    # Litestar types the same ASGI messages more narrowly than the specification does.
    routes = AllMethods(cast("AsgiApp", build_litestar(settings, gateway)))
    metrics = gateway.metrics_app()
    edge = Edge(
        mount(MOUNTED_AT, gateway.serve, beside=mount(METRICS_AT, metrics, beside=routes) if metrics else routes),
        max_body_bytes=settings.max_body_bytes,
        production=settings.is_production,
        render_error=_render_error,
        is_leaving=gateway.is_leaving,
    )
    return Cors(edge, origins=settings.cors_origins)


def build_litestar(settings: Settings, gateway: Gateway) -> Litestar:
    """The routes and what they share, without the layers that hold for every request."""
    return Litestar(
        route_handlers=[
            Router("/v1", route_handlers=[AUTH, ME, WORKSPACES, MEMBERS, KEYS, LIMITS, USAGE, LLM_SETTINGS]),
            HEALTH,
            openapi_json,
        ],
        lifespan=[_services_of(settings, gateway), lambda app: gateway.lifespan(app.state.services.tokens)],
        guards=[require_caller],
        request_class=StrictRequest,
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=openapi_config(),
        dependencies={
            "caller": Provide(provide_caller, sync_to_thread=False),
            "page": Provide(provide_page, sync_to_thread=False),
            "services": Provide(_provide_services, sync_to_thread=False),
            "supabase_auth": Provide(_provide_auth, sync_to_thread=False),
            "sign_in_guards": Provide(_provide_sign_in_guards, sync_to_thread=False),
        },
        request_max_body_size=settings.max_body_bytes,
        logging_config=None,
    )


def _render_error(error: ButtressError, request_id: str, scope: Scope) -> bytes:
    """A refusal at the edge, in the format of the service it was meant for."""
    render = render_gateway_error if is_below(MOUNTED_AT, scope) else render_envelope
    return render(error, request_id, scope)


def _services_of(settings: Settings, gateway: Gateway) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    async def gateway_check() -> bool:
        return await gateway.unready_reason() is None

    @asynccontextmanager
    async def services(app: Litestar) -> AsyncGenerator[None, None]:
        async with supabase_client(settings) as http:
            app.state.services = Services(
                settings=settings,
                http=http,
                tokens=TokenVerifier.from_settings(settings, http),
                auth=SupabaseAuth(settings, http),
                sign_in_guards=SignInGuards(
                    by_account_and_ip=FloodGuard(burst=10, refill_s=6.0), by_ip=FloodGuard(burst=60, refill_s=1.0)
                ),
                keys=KeyRing.from_settings(settings),
                readiness=Readiness(
                    {**supabase_checks(settings, http), "gateway": gateway_check},
                    budget_s=settings.supabase_deadline_s / 5,
                ),
            )
            yield

    return services


def _provide_services(state: State) -> Services:
    services = state.services
    if not isinstance(services, Services):
        raise TypeError("a request came before the lifespan began")
    return services


def _provide_auth(services: SharedServices) -> SupabaseAuth:
    return services.auth


def _provide_sign_in_guards(services: SharedServices) -> SignInGuards:
    return services.sign_in_guards
