"""The gateway's wiring: `create_gateway` for whoever mounts it, `create_app` to run alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import Final, cast

from litestar import Litestar, Response, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.handlers import ASGIRouteHandler, asgi
from litestar.types import ASGIApp

from core.asgi import AsgiApp, Edge, Receive, Scope, Send
from core.errors import ButtressError
from core.heap import keep_for_good
from core.http import make_http_client
from core.logging import configure_logging, get_logger
from core.postgres import close_pool, open_pool
from core.provider_http import ProviderHttp
from core.redaction import protect
from core.settings import Settings, SettingsInvalid, load_settings
from core.tokens import TokenVerifier
from llm_gateway.beside import SWEEP_EVERY_S, Beside, open_beside
from llm_gateway.cache.key import CacheKeys
from llm_gateway.callers import WORKSPACE_HEADER, Callers
from llm_gateway.catalog import Catalog
from llm_gateway.catalog_load import load_catalog
from llm_gateway.content.hooks import ContentHook
from llm_gateway.content.redactor import Redactor
from llm_gateway.content.rules import ContentRules, load_hooks
from llm_gateway.directory import QUESTIONS_AT_ONCE, PostgresDirectory
from llm_gateway.endpoints import MOUNTED_AT, Endpoints, dialect_of
from llm_gateway.keeping import Keeper
from llm_gateway.keys import KeyRing
from llm_gateway.limits.ledger import Ledger
from llm_gateway.limits.postgres import PostgresLedger
from llm_gateway.metrics import Metrics
from llm_gateway.metrics_endpoint import METRICS_AT, MetricsEndpoint
from llm_gateway.observation import Observer
from llm_gateway.pipeline import Pipeline
from llm_gateway.providers.contract import Providers
from llm_gateway.providers.counting import CountingProvider
from llm_gateway.providers.litellm import LitellmProvider
from llm_gateway.providers.native import NativeProvider
from llm_gateway.settlement import DetachedTasks
from llm_gateway.times import Times
from llm_gateway.upkeep import (
    KEEP_BOOKS_EVERY_S,
    Shutdown,
    every,
    renew_leases,
    when_told_to_leave,
    when_told_to_stop,
)

log = get_logger(__name__)

# Most of a call's time is the provider's; the database sees two short statements of it.
_POOL_SIZE: Final = 10
# Of several workers only one answers Prometheus; what the others are busy with is no older than this.
_SAMPLE_EVERY_S: Final = 5.0
# As in scopes of keys and usage rows.
ENDPOINTS: Final = ("chat", "responses", "embeddings", "messages", "count_tokens", "models")


class Gateway:
    """The gateway as a part of another application: an ASGI handler, its lifespan, and its readiness."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        ledger: Ledger | None,
        times: Times,
        hooks: Sequence[ContentHook] = (),
    ) -> None:
        self.catalog = catalog
        self.metrics = Metrics(
            models=[model.name for model in catalog],
            deployments=[deployment.id for model in catalog for deployment in model.deployments],
            endpoints=ENDPOINTS,
        )
        self._settings = settings
        self._times = times
        self._ledger = ledger
        self._hooks = tuple(hooks)
        self._pipeline: Pipeline | None = None
        self._beside: Beside | None = None
        self._endpoints: Endpoints | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request below the mount point (`/v1/models`, `/v1/chat/completions` …) has been answered."""
        if self._endpoints is None:
            raise RuntimeError("The gateway serves within its lifespan only.")
        await self._endpoints.serve(scope, receive, send)

    def metrics_app(self) -> AsgiApp | None:
        """What answers METRICS_AT with the gateway's figures; None where the operator gave no token for it."""
        token = self._settings.metrics_token
        if token is None:
            return None
        return MetricsEndpoint(self.metrics, token=token.get_secret_value(), sample=self._sample).serve

    @asynccontextmanager
    async def lifespan(self, tokens: TokenVerifier | None = None) -> AsyncGenerator[None, None]:
        """Within: requests may be served. Afterwards: every call is settled and every connection is closed.

        `tokens` is the verifier of whoever mounts this, so that a token is verified once for both; None: its own.
        """
        async with AsyncExitStack() as parts:
            pipeline = await self._make_pipeline(parts, tokens)
            shutdown = Shutdown(pipeline)
            parts.callback(when_told_to_stop(shutdown.begin))
            if self._times.lame_duck:
                when_told_to_leave(shutdown.announce, self._times.lame_duck)
            await parts.enter_async_context(_upkeep(pipeline, self._sample, self._sweep))
            parts.push_async_callback(shutdown.finish)
            self._pipeline, self._endpoints = pipeline, Endpoints(pipeline)
            keep_for_good()
            yield

    def is_leaving(self) -> bool:
        """It was told to stop: whoever can should open the next connection to another process."""
        return self._pipeline is not None and self._pipeline.leaving

    async def unready_reason(self) -> str | None:
        """None while calls can be served, else a sentence saying what is missing (safe to show)."""
        if self._pipeline is None:
            return "The gateway has not started."
        if self._pipeline.leaving:
            return "The gateway is shutting down."
        try:
            await self._pipeline.ledger.reap()
        except ButtressError as error:
            log.warning("gateway_database_down", reason=_first_cause(error))
            return "The gateway's database cannot be reached."
        return None

    async def _sample(self) -> None:
        """The figures that nobody counts as they change are as they are now."""
        if self._pipeline is not None and self._beside is not None:
            self.metrics.sample(in_flight=len(self._pipeline.calls), backlog=len(self._pipeline.tasks))
            if self._settings.metrics_token is not None:
                await self._beside.sample()

    async def _sweep(self) -> None:
        if self._beside is not None:
            await self._beside.sweep()

    async def _make_pipeline(self, parts: AsyncExitStack, tokens: TokenVerifier | None) -> Pipeline:
        tasks = DetachedTasks()
        ledger = self._ledger or await self._open_ledger(parts)
        if tokens is None:
            http = await parts.enter_async_context(make_http_client())
            tokens = TokenVerifier.from_settings(self._settings, http)
        provider_http = ProviderHttp()
        parts.callback(provider_http.close)
        native = NativeProvider(provider_http)
        litellm = LitellmProvider(native, tasks)
        parts.push_async_callback(litellm.aclose)
        if self.catalog.needs_translation():
            tasks.start(litellm.warm(), name="import litellm")
        dsn = self._settings.gateway_database_url.get_secret_value()
        self._beside = beside = await parts.enter_async_context(open_beside(dsn, self.metrics))
        rules = ContentRules([*self._hooks, Redactor(self.metrics)], self.metrics)
        keys = CacheKeys(self._settings.key_pepper.get_secret_value(), rules.names)
        observers = [await parts.enter_async_context(_open_genai())] if self._settings.otel else []
        return Pipeline(
            catalog=self.catalog,
            callers=Callers(
                tokens,
                KeyRing.from_settings(self._settings),
                await self._open_directory(parts),
            ),
            ledger=ledger,
            providers=Providers(native=native, translating=litellm, counting=CountingProvider(self.catalog)),
            max_body_bytes=self._settings.max_body_bytes,
            max_json_depth=self._settings.max_json_depth,
            metrics=self.metrics,
            rules=rules,
            keeper=Keeper(tasks, keys, beside.cache, beside.contents),
            observers=tuple(observers),
            tasks=tasks,
            times=self._times,
        )

    async def _open_directory(self, parts: AsyncExitStack) -> PostgresDirectory:
        """It has connections of its own: a ledger whose connections are all busy keeps nobody from being identified."""
        dsn = self._settings.gateway_database_url.get_secret_value()
        pool = await open_pool(dsn, name="llm_gateway_callers", min_size=1, max_size=QUESTIONS_AT_ONCE)
        parts.push_async_callback(close_pool, pool)
        directory = PostgresDirectory(pool)
        parts.push_async_callback(directory.aclose)
        return directory

    async def _open_ledger(self, parts: AsyncExitStack) -> Ledger:
        dsn = self._settings.gateway_database_url.get_secret_value()
        pool = await open_pool(dsn, name="llm_gateway", min_size=1, max_size=_POOL_SIZE)
        parts.push_async_callback(close_pool, pool)
        ledger = PostgresLedger(pool)
        parts.push_async_callback(ledger.aclose)
        return ledger


def _has_opentelemetry() -> bool:
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def _open_genai() -> AbstractAsyncContextManager[Observer]:
    from llm_gateway.genai import open_genai  # noqa: PLC0415 (an extra, imported where it is switched on)

    return open_genai()


def _first_cause(error: BaseException) -> str:
    """What PostgreSQL or the network said in the first place; for the log, never for a caller."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error) or type(error).__name__


def create_gateway(
    settings: Settings,
    *,
    ledger: Ledger | None = None,
    environ: Mapping[str, str] | None = None,
    hooks: Sequence[ContentHook] = (),
) -> Gateway:
    """A gateway that has done no I/O but reading models.toml; without `ledger` it opens its own in PostgreSQL.

    No log line of this process will show the providers' keys.

    `hooks` are asked about content after those that BUTTRESS_CONTENT_HOOKS names, and before the redactor.

    Raises: CatalogInvalid naming everything that is wrong with models.toml; HookInvalid; SettingsInvalid; TimesInvalid.
    """
    environ = os.environ if environ is None else environ
    catalog = load_catalog(settings.models_file, environ)
    protect(*catalog.secrets())
    for sentence in catalog.unavailable:
        log.warning("deployment_unavailable", reason=sentence)
    if settings.otel and not _has_opentelemetry():
        raise SettingsInvalid(["BUTTRESS_OTEL: is on, and its library is not installed: pip install 'buttress[otel]'."])
    every_hook = [*load_hooks(settings.content_hooks), *hooks]
    return Gateway(settings, catalog, ledger, Times.from_environment(environ), every_hook)


def create_app(settings: Settings | None = None) -> AsgiApp:
    """The gateway alone, below /llm, with `/health/live` and `/health/ready`; for `python -m llm_gateway`.

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


def render_error(error: ButtressError, request_id: str, scope: Scope) -> bytes:
    """The error body in the words of the address's format, for what is refused before the gateway sees it."""
    return dialect_of(scope).error_body(error, request_id)


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


@asynccontextmanager
async def _upkeep(
    pipeline: Pipeline, sample: Callable[[], Awaitable[None]], sweep: Callable[[], Awaitable[None]]
) -> AsyncGenerator[None, None]:
    loops = [
        asyncio.create_task(every(pipeline.times.renew_every, lambda: renew_leases(pipeline), "renew leases")),
        asyncio.create_task(every(pipeline.times.reap_every, pipeline.ledger.reap, "reap")),
        asyncio.create_task(every(KEEP_BOOKS_EVERY_S, pipeline.ledger.upkeep, "keep books", first_after_s=0.0)),
        asyncio.create_task(every(_SAMPLE_EVERY_S, sample, "sample metrics")),
        asyncio.create_task(every(SWEEP_EVERY_S, sweep, "sweep")),
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
