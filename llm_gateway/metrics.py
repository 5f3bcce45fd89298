"""What the gateway counts, for Prometheus: each call a few additions, no label that a client could make up.

A label's values are the catalogue's names and words of our own, so the number of series is bounded; whatever else is
asked for counts as `other`. Times are seconds and money is nano-dollars (1e-9 USD), as everywhere in this gateway.

Several workers of one server add up through files: PROMETHEUS_MULTIPROC_DIR names their folder (worker_figures.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from llm_gateway.observation import CallRecord
from llm_gateway.worker_figures import render_everybody, use_shared_folder

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"

CacheEvent = Literal["hit", "miss", "stored", "unavailable"]

_CALL_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_OVERHEAD_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_STATUS_CLASSES: Final = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
_CLIENT_GONE: Final = 499
_STANDING: Final = {
    "holds": ("holds", "Calls held in the ledger, of all processes."),
    "held_tokens": ("held_tokens", "Tokens held."),
    "held_nano_usd": ("held_nano_usd", "Money held, in billionths of a dollar."),
    "oldest_hold_s": ("oldest_hold_seconds", "Age of the oldest hold."),
    "subjects_in_debt": ("subjects_in_debt", "Users, keys and workspaces that spent more than a limit."),
    "debt_nano_usd": ("debt_nano_usd", "Spent beyond limits, in billionths of a dollar."),
}
_TOKEN_CLASSES: Final = (
    "input", "cached_input", "cache_write_5m", "cache_write_1h", "input_audio", "output", "reasoning", "output_audio",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """What the ledger holds at one moment, for everybody together. Units: tokens and nano-dollars; seconds."""

    holds: int
    held_tokens: int
    held_nano_usd: int
    oldest_hold_s: float
    subjects_in_debt: int
    debt_nano_usd: int


@dataclass(slots=True)
class _OfCalls:
    """The series that one endpoint and model's calls move; found once, because finding costs more than adding."""

    duration: Histogram
    first_output: Histogram
    overhead: Histogram
    cost: Counter
    tokens: dict[str, Counter]
    images: Counter
    requests: dict[int, Counter]


class Metrics:
    """The counters of one process. Every method adds and returns; none fails, whatever it is told."""

    def __init__(self, *, models: Collection[str], deployments: Collection[str], endpoints: Collection[str]) -> None:
        self._models = frozenset(models)
        self._deployments = frozenset(deployments)
        self._endpoints = frozenset(endpoints)
        self._of_calls: dict[tuple[str, str], _OfCalls] = {}
        self._registry = registry = CollectorRegistry()
        self._folder = use_shared_folder()
        if self._folder is None:
            ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"buttress_llm_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"buttress_llm_{name}", text, labels, registry=registry, buckets=bounds)

        def gauge(name: str, text: str, mode: Literal["livesum", "livemostrecent"]) -> Gauge:
            return Gauge(f"buttress_llm_{name}", text, registry=registry, multiprocess_mode=mode)

        by_call = ("endpoint", "model")
        self._requests = counter("requests", "Requests by what they were answered.", *by_call, "status")
        self._duration = histogram("request_duration_seconds", "From request to last byte.", _CALL_S, *by_call)
        self._first_output = histogram("time_to_first_token_seconds", "Of streams.", _CALL_S, *by_call)
        self._overhead = histogram("overhead_seconds", "The gateway's own part of a call.", _OVERHEAD_S, *by_call)
        self._tokens = counter("tokens", "Tokens by class; the classes are disjoint.", *by_call, "class")
        self._images = counter("images", "Pictures made.", *by_call)
        self._cost = counter("cost_nano_usd", "What calls cost, in billionths of a dollar.", *by_call)
        self._refusals = counter("refusals", "Calls that a limit refused.", "scope", "limit")
        self._unavailable = counter("unavailable", "Requests refused because of what could not be asked.", "what")
        self._denials = counter("denials", "Calls that a rule of the operator's refused.", "rule")
        self._provider_errors = counter("provider_errors", "Attempts that failed.", "deployment", "kind")
        self._retries = counter("retries", "Attempts after the first at the same model.", "model")
        self._fallbacks = counter("fallbacks", "Attempts at another model than was asked for.", "model")
        self._cache = counter("cache", "What the response cache did.", "event")
        self._redactions = counter("redactions", "Personal data taken out.", "kind", "of")
        self._in_flight = gauge("calls_in_flight", "Calls being worked on.", "livesum")
        self._backlog = gauge("settlement_backlog", "Settlements not yet written.", "livesum")
        self._ledger_up = gauge("ledger_up", "1 if the ledger answered when last asked, else 0.", "livemostrecent")
        self._held = {field: gauge(name, text, "livemostrecent") for field, (name, text) in _STANDING.items()}

    def finished(self, record: CallRecord) -> None:
        """The call is in every figure it belongs to."""
        series = self._series(record.endpoint, record.model)
        self._count_request(series, record.endpoint, record.model, record.status)
        series.duration.observe(record.duration_s)
        if record.overhead_s is not None:
            series.overhead.observe(record.overhead_s)
        if record.first_output_s is not None:
            series.first_output.observe(record.first_output_s)
        if record.cost_nano_usd > 0:
            series.cost.inc(record.cost_nano_usd)
        counts = record.counts
        for name, tokens in series.tokens.items():
            if (count := getattr(counts, name)) > 0:
                tokens.inc(count)
        if counts.images > 0:
            series.images.inc(counts.images)

    def refused(self, *, endpoint: str, model: str | None, status: int) -> None:
        """A request that never became a call was answered with this status."""
        name = model or OTHER
        self._count_request(self._series(endpoint, name), endpoint, name, status)

    def limit_reached(self, *, scope: str, limit: str) -> None:
        """A limit of the ledger's has refused a call."""
        self._refusals.labels(scope, limit).inc()

    def unavailable(self, what: str) -> None:
        """A request was refused because something of ours could not be asked; `what` is the code of the refusal."""
        self._unavailable.labels(what).inc()

    def denied(self, rule: str) -> None:
        """A rule of ours or of the operator's has refused a call; `rule` is its name in the code or the settings."""
        self._denials.labels(rule).inc()

    def provider_failed(self, deployment: str, kind: str) -> None:
        """One attempt at this deployment has failed."""
        self._provider_errors.labels(deployment if deployment in self._deployments else OTHER, kind).inc()

    def tried_again(self, model: str, *, fallback: bool) -> None:
        """Another attempt is being made, at `model`, which is not the one asked for where it is a fallback."""
        (self._fallbacks if fallback else self._retries).labels(self._known(model)).inc()

    def cached(self, event: CacheEvent) -> None:
        """The response cache did this."""
        self._cache.labels(event).inc()

    def redacted(self, kind: str, *, of: Literal["request", "answer"], count: int = 1) -> None:
        """So many pieces of personal data of one kind were taken out."""
        self._redactions.labels(kind, of).inc(count)

    def sample(self, *, in_flight: int, backlog: int) -> None:
        """What this process is busy with now."""
        self._in_flight.set(in_flight)
        self._backlog.set(backlog)

    def sample_ledger(self, figures: LedgerFigures | None) -> None:
        """What the ledger said of all processes, or that it did not answer: then its last figures stay."""
        self._ledger_up.set(0 if figures is None else 1)
        if figures is not None:
            for name, gauge in self._held.items():
                gauge.set(getattr(figures, name))

    def render(self) -> bytes:
        """All of it in Prometheus' text format; of every worker, where several share a folder."""
        if self._folder is None:
            return generate_latest(self._registry)
        return render_everybody(self._folder)

    def _known(self, model: str) -> str:
        return model if model in self._models else OTHER

    def _series(self, endpoint: str, model: str) -> _OfCalls:
        found = self._of_calls.get((endpoint, model))
        if found is not None:
            return found
        labels = (endpoint if endpoint in self._endpoints else OTHER, self._known(model))
        made = self._of_calls.get(labels) or _OfCalls(
            duration=self._duration.labels(*labels),
            first_output=self._first_output.labels(*labels),
            overhead=self._overhead.labels(*labels),
            cost=self._cost.labels(*labels),
            tokens={name: self._tokens.labels(*labels, name) for name in _TOKEN_CLASSES},
            images=self._images.labels(*labels),
            requests={},
        )
        self._of_calls[labels] = made  # under known names only, so that strangers' names fill no memory
        return made

    def _count_request(self, series: _OfCalls, endpoint: str, model: str, status: int) -> None:
        requests = series.requests.get(status)
        if requests is None:
            kind = "client_gone" if status == _CLIENT_GONE else _STATUS_CLASSES.get(status // 100, OTHER)
            known_endpoint = endpoint if endpoint in self._endpoints else OTHER
            requests = series.requests[status] = self._requests.labels(known_endpoint, self._known(model), kind)
        requests.inc()
