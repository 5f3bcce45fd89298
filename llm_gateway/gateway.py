"""The gateway as a part of whoever mounts it: what it serves, while it serves, and how it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, get_args

from core.asgi import AsgiApp, Receive, Scope, Send
from core.errors import ButtressError
from core.heap import keep_for_good
from core.logging import get_logger
from core.redaction import protect
from core.settings import Settings
from core.tokens import TokenVerifier
from llm_gateway.beside import SWEEP_EVERY_S, Beside
from llm_gateway.catalog import Catalog
from llm_gateway.catalog_load import load_catalog
from llm_gateway.content.hooks import ContentHook
from llm_gateway.content.rules import load_hooks
from llm_gateway.endpoints import Endpoints
from llm_gateway.limits.ledger import Ledger, NotEnforced
from llm_gateway.metrics import Metrics
from llm_gateway.metrics_endpoint import MetricsEndpoint
from llm_gateway.pipeline import Pipeline
from llm_gateway.times import Times
from llm_gateway.upkeep import (
    KEEP_BOOKS_EVERY_S,
    Shutdown,
    every,
    renew_leases,
    when_told_to_leave,
    when_told_to_stop,
)
from llm_gateway.wire.format import Endpoint
from llm_gateway.wiring import Wiring

log = get_logger(__name__)

# Of several workers only one answers Prometheus; what the others are busy with is no older than this.
_SAMPLE_EVERY_S: Final = 5.0


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
            endpoints=[*get_args(Endpoint), "models"],
        )
        self._wiring = Wiring(
            settings=settings, catalog=catalog, metrics=self.metrics, times=times, ledger=ledger, hooks=tuple(hooks)
        )
        self._settings = settings
        self._times = times
        self._pipeline: Pipeline | None = None
        self._beside: Beside | None = None
        self._endpoints: Endpoints | None = None
        self._limits_seen = False  # calls that limits forbid were seen refused

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
            pipeline, self._beside = await self._wiring.open(parts, tokens)
            shutdown = Shutdown(pipeline, silent_s=2 * self._settings.database_deadline_s)
            parts.callback(when_told_to_stop(shutdown.begin))
            if self._times.lame_duck:
                when_told_to_leave(shutdown.lame_duck)
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
            if not self._limits_seen:  # whoever asks may have less patience than a cold connection takes
                await asyncio.shield(self._see_limits(self._pipeline.ledger))
        except NotEnforced as error:
            log.exception("limits_not_enforced")
            return error.message
        except ButtressError as error:
            log.warning("gateway_database_down", reason=_first_cause(error))
            return "The gateway's database cannot be reached."
        return None

    async def _see_limits(self, ledger: Ledger) -> None:
        self._limits_seen = await ledger.rehearse()

    async def _sample(self) -> None:
        """The figures that nobody counts as they change are as they are now."""
        if self._pipeline is not None and self._beside is not None:
            self.metrics.sample(in_flight=len(self._pipeline.calls), backlog=len(self._pipeline.tasks))
            if self._settings.metrics_token is not None:
                await self._beside.sample()

    async def _sweep(self) -> None:
        if self._beside is not None:
            await self._beside.sweep()


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

    Raises: CatalogInvalid naming everything that is wrong with models.toml; HookInvalid; TimesInvalid.
    """
    environ = os.environ if environ is None else environ
    catalog = load_catalog(settings.models_file, environ)
    protect(*catalog.secrets())
    for sentence in catalog.unavailable:
        log.warning("deployment_unavailable", reason=sentence)
    every_hook = [*load_hooks(settings.content_hooks), *hooks]
    return Gateway(settings, catalog, ledger, Times.from_environment(environ), every_hook)


def _first_cause(error: BaseException) -> str:
    """What PostgreSQL or the network said in the first place; for the log, never for a caller."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error) or type(error).__name__
