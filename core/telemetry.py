"""OpenTelemetry for a service that wants it: spans and figures sent over OTLP/HTTP, in the background, never awaited.

The library is an extra (`pip install buttress[otel]`), so this module is imported only where it is switched on. Where
to, how often and with which headers is said by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT and others).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

# A collector that is gone must not hold a shutdown up.
_FLUSH_MS: Final = 2000


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One tracer and one meter of this process."""

    tracer: Tracer
    meter: Meter
    spans: TracerProvider
    figures: MeterProvider

    def close(self) -> None:
        """What was recorded has been sent, or given up after seconds. Blocks: call it in a thread."""
        self.spans.force_flush(_FLUSH_MS)
        self.spans.shutdown()
        self.figures.shutdown(_FLUSH_MS)


def open_telemetry(service: str) -> Telemetry:
    """Telemetry of the service of this name (OTEL_SERVICE_NAME overrides it); nothing is connected yet."""
    resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service})
    spans = TracerProvider(resource=resource, shutdown_on_exit=False)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    figures = MeterProvider(resource=resource, metric_readers=[reader], shutdown_on_exit=False)
    return Telemetry(spans.get_tracer(service), figures.get_meter(service), spans, figures)
