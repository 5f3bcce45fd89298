"""A collector of OpenTelemetry's own protocol over real HTTP: it keeps what it was sent, for tests to read."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Attributes = dict[str, object]


class Collector:
    """What arrived so far: raw bodies by path, and what they say."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[tuple[str, bytes]] = []

    def everything(self) -> bytes:
        """All bodies, one after the other: to search them for what must not be there."""
        return b"\n".join(body for _, body in self.bodies)

    def spans(self) -> list[Span]:
        """Every span, in the order in which they came."""
        requests = [ExportTraceServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/traces"]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def points(self, metric: str) -> list[HistogramDataPoint]:
        """Every point of the histogram of this name."""
        return [point for one in self._metrics(metric) for point in one.histogram.data_points]

    def counted(self, metric: str) -> list[NumberDataPoint]:
        """Every point of the counter of this name."""
        return [point for one in self._metrics(metric) for point in one.sum.data_points]

    def _metrics(self, name: str) -> list[Metric]:
        requests = [ExportMetricsServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/metrics"]
        return [
            one
            for request in requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for one in scope.metrics
            if one.name == name
        ]


def attributes_of(pairs: Iterable[KeyValue]) -> Attributes:
    """Attributes as a dictionary of plain values."""
    found: Attributes = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        found[pair.key] = getattr(pair.value, kind) if kind else None
    return found


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector that listens inside the block."""
    collector: Collector

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.bodies.append((self.path, body))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's own name)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
