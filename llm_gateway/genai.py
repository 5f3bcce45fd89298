"""Every call as a span and as figures, under OpenTelemetry's names for generative AI; never a word of its content.

Imported only where BUTTRESS_OTEL is on: the library is an extra.

Source: OpenTelemetry semantic conventions, "Generative AI" (opentelemetry-semantic-conventions 0.66b2); the counters of
_USED: open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-token-metrics.md (2026). What has no name in
either is ours, under `buttress.`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.telemetry import Telemetry, open_telemetry
from llm_gateway.accounting import TokenCounts
from llm_gateway.observation import CallRecord

_OPERATIONS: Final = {"embeddings": "embeddings"}  # the others are chats, in whatever format
# models.toml's providers under the names of the conventions; the rest keep their own.
_PROVIDERS: Final = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "openai": "openai",
}
# The newer names (2026) for what `gen_ai.client.token.usage` says; parts are counted within their whole.
_USED: Final[Mapping[str, Callable[[TokenCounts], int]]] = {
    "input_tokens": lambda counts: counts.prompt_tokens,
    "output_tokens": lambda counts: counts.output_tokens,
    "cache_read.input_tokens": lambda counts: counts.cached_input,
    "cache_write.input_tokens": lambda counts: counts.cache_write_5m + counts.cache_write_1h,
    "reasoning.output_tokens": lambda counts: counts.reasoning,
}
_FAILED: Final = Status(StatusCode.ERROR)
_NS_PER_S: Final = 1_000_000_000
_TOKEN_BOUNDS: Final = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
_SECOND_BOUNDS: Final = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]

_Value = str | int | float | bool


class GenAiTelemetry:
    """An Observer that tells a collector of each call once it is over: nothing has to be carried along meanwhile."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._tracer = telemetry.tracer
        self._traces = TraceContextTextMapPropagator()
        meter = telemetry.meter
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", explicit_bucket_boundaries_advisory=_SECOND_BOUNDS
        )
        self._first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", explicit_bucket_boundaries_advisory=_SECOND_BOUNDS
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", explicit_bucket_boundaries_advisory=_TOKEN_BOUNDS
        )
        self._used = {name: meter.create_counter(f"gen_ai.client.inference.usage.{name}", "{token}") for name in _USED}

    def finished(self, record: CallRecord) -> None:
        """The call is a span that began when its request arrived, below the client's own where it named one."""
        shared = _shared(record)
        span = self._tracer.start_span(
            f"{shared['gen_ai.operation.name']} {record.model}",
            context=self._traces.extract({"traceparent": record.traceparent}) if record.traceparent else None,
            kind=SpanKind.CLIENT,
            attributes={**shared, **_of_span(record)},
            start_time=record.ended_at_ns - round(record.duration_s * _NS_PER_S),
        )
        if "error.type" in shared:
            span.set_status(_FAILED)
        span.end(record.ended_at_ns)
        self._duration.record(record.duration_s, shared)
        if record.first_output_s is not None:
            self._first_chunk.record(record.first_output_s, shared)
        if record.counts.total:
            self._tokens.record(record.counts.prompt_tokens, {**shared, "gen_ai.token.type": "input"})
            self._tokens.record(record.counts.output_tokens, {**shared, "gen_ai.token.type": "output"})
            for name, count_of in _USED.items():
                if tokens := count_of(record.counts):
                    self._used[name].add(tokens, shared)


@asynccontextmanager
async def open_genai() -> AsyncGenerator[GenAiTelemetry]:
    """Inside, a collector is told of calls; afterwards it has been told of all, if it listened."""
    telemetry = open_telemetry("buttress-gateway")
    try:
        yield GenAiTelemetry(telemetry)
    finally:
        await asyncio.to_thread(telemetry.close)


def _shared(record: CallRecord) -> dict[str, _Value]:
    """The attributes of both span and figures: few values each."""
    shared: dict[str, _Value] = {
        "gen_ai.operation.name": _OPERATIONS.get(record.endpoint, "chat"),
        "gen_ai.provider.name": _PROVIDERS.get(record.provider or "", record.provider or "buttress"),
        "gen_ai.request.model": record.model,
    }
    if record.provider_model is not None:
        shared["gen_ai.response.model"] = record.provider_model
    if record.error_code is not None:
        shared["error.type"] = record.error_code
    return shared


def _of_span(record: CallRecord) -> dict[str, _Value]:
    counts = record.counts
    return {
        "gen_ai.request.stream": record.stream,
        "gen_ai.usage.input_tokens": counts.prompt_tokens,
        "gen_ai.usage.output_tokens": counts.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": counts.cached_input,
        "gen_ai.usage.cache_creation.input_tokens": counts.cache_write_5m + counts.cache_write_1h,
        "gen_ai.usage.reasoning.output_tokens": counts.reasoning,
        "buttress.call_id": record.call_id,
        "buttress.endpoint": record.endpoint,
        "buttress.deployment": record.deployment or "",
        "buttress.outcome": record.outcome,
        "buttress.cost_nano_usd": record.cost_nano_usd,
        "http.response.status_code": record.status,
    }
