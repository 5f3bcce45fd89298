"""What a serving gateway consists of: every part is made here, handed to whoever needs it, and closed in reverse."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Final

from core.http import supabase_client
from core.postgres import ServicePool, service_pool
from core.provider_http import ProviderHttp
from core.settings import Settings
from core.tokens import TokenVerifier
from llm_gateway.asking import Asking
from llm_gateway.beside import Beside, open_beside
from llm_gateway.cache.key import CacheKeys
from llm_gateway.callers import Callers
from llm_gateway.catalog import Catalog
from llm_gateway.content.hooks import ContentHook
from llm_gateway.content.redactor import AnswerRedactor, RequestRedactor
from llm_gateway.content.rules import ContentRules
from llm_gateway.directory import QUESTIONS_AT_ONCE, PostgresDirectory
from llm_gateway.keeping import Keeper
from llm_gateway.keys import KeyRing
from llm_gateway.limits.ledger import Ledger
from llm_gateway.limits.postgres import PostgresLedger
from llm_gateway.metrics import Metrics
from llm_gateway.observation import Observer
from llm_gateway.pipeline import Pipeline
from llm_gateway.providers.contract import Providers
from llm_gateway.providers.counting import CountingProvider
from llm_gateway.providers.litellm import LitellmProvider
from llm_gateway.providers.native import NativeProvider
from llm_gateway.settlement import DetachedTasks
from llm_gateway.times import Times

# Most of a call's time is the provider's; the database sees two short statements of it.
_POOL_SIZE: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What is known before anything is opened. Without a ledger it opens its own in PostgreSQL."""

    settings: Settings
    catalog: Catalog
    metrics: Metrics
    times: Times
    ledger: Ledger | None
    hooks: tuple[ContentHook, ...]

    async def open(self, parts: AsyncExitStack, tokens: TokenVerifier | None) -> tuple[Pipeline, Beside]:
        """Calls can be answered until `parts` are closed. `tokens` None: a verifier of its own."""
        tasks = DetachedTasks()
        ledger = self.ledger or await self._open_ledger(parts)
        if tokens is None:
            http = await parts.enter_async_context(supabase_client(self.settings))
            tokens = TokenVerifier.from_settings(self.settings, http)
        providers = self._open_providers(parts, tasks)
        beside = await parts.enter_async_context(open_beside(self.settings, self.metrics))
        redactors = [RequestRedactor(self.metrics), AnswerRedactor(self.metrics)]
        rules = ContentRules([*self.hooks, *redactors], self.metrics)
        keys = CacheKeys(self.settings.key_pepper.get_secret_value(), rules.names)
        observers = [await parts.enter_async_context(_open_genai())] if self.settings.otel else []
        pipeline = Pipeline(
            catalog=self.catalog,
            callers=Callers(tokens, KeyRing.from_settings(self.settings), await self._open_directory(parts)),
            ledger=ledger,
            asking=Asking(providers=providers, metrics=self.metrics),
            max_body_bytes=self.settings.max_body_bytes,
            max_json_depth=self.settings.max_json_depth,
            metrics=self.metrics,
            rules=rules,
            keeper=Keeper(tasks, keys, beside.cache, beside.contents),
            observers=tuple(observers),
            tasks=tasks,
            times=self.times,
        )
        return pipeline, beside

    def _open_providers(self, parts: AsyncExitStack, tasks: DetachedTasks) -> Providers:
        provider_http = ProviderHttp()
        parts.callback(provider_http.close)
        native = NativeProvider(provider_http)
        litellm = LitellmProvider(native, tasks)
        parts.push_async_callback(litellm.aclose)
        if self.catalog.needs_translation():
            tasks.start(litellm.ready(), name="import litellm")
        return Providers(native=native, translating=litellm, counting=CountingProvider(self.catalog))

    async def _open_directory(self, parts: AsyncExitStack) -> PostgresDirectory:
        """It has connections of its own: a ledger whose connections are all busy keeps nobody from being identified."""
        directory = PostgresDirectory(await self._open_pool(parts, "llm_gateway_callers", QUESTIONS_AT_ONCE))
        parts.push_async_callback(directory.aclose)
        return directory

    async def _open_ledger(self, parts: AsyncExitStack) -> Ledger:
        ledger = PostgresLedger(await self._open_pool(parts, "llm_gateway", _POOL_SIZE))
        parts.push_async_callback(ledger.aclose)
        return ledger

    async def _open_pool(self, parts: AsyncExitStack, name: str, max_size: int) -> ServicePool:
        return await parts.enter_async_context(service_pool(self.settings, name=name, max_size=max_size))


def _open_genai() -> AbstractAsyncContextManager[Observer]:
    from llm_gateway.genai import open_genai  # noqa: PLC0415 (an extra, imported where it is switched on)

    return open_genai()
