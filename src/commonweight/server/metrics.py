"""Metrics for Prometheus. Label values are a fixed set: no client input becomes one."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from commonweight import __version__
from commonweight.engines.contract import Engine, Priority, Stats
from commonweight.guard import Findings
from commonweight.server.lifecycle import Lifecycle
from commonweight.server.request_log import RequestRecord
from commonweight.turn import Assistant, TurnRecord
from commonweight.turn.record import GAP_BUCKETS_SECONDS, TokenGaps

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each one, which hardly anybody reads

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")


class Metrics:
    """Counters and histograms of finished HTTP requests and turns."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._gaps: dict[Priority, TokenGaps] = {priority: TokenGaps() for priority in _PRIORITIES}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"commonweight_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"commonweight_{name}_seconds", text, labels, buckets=buckets, registry=registry)

        self._requests = counter("http_requests", "Requests answered.", "method", "route", "status")
        self._errors = counter("errors", "Errors told to clients, also within streams, by the API's type.", "type")
        self._durations = histogram("http_request", "From a request's head to its answer's end.", _LONG, "route")
        self._turns = counter("turns", "Turns of a model, by how they ended.", "priority", "outcome")
        self._tokens = counter("tokens", "Tokens of turns as billed; output includes thinking.", "kind")
        self._queue = histogram("queue", "Waiting for the engine.", _QUICK, "priority")
        self._prefill = histogram("prefill", "Reading the prompt.", _QUICK, "priority")
        self._first = histogram("first_token", "From a request to its first token.", _QUICK, "priority")
        self._total = histogram("turn", "From a request to its last token.", _LONG, "priority")
        self._unread = counter("guard_unread", "Inputs in a language that the guard's heads cannot read.")
        self._screened = counter(
            "guard_exchanges", "Exchanges that the guard saw, by how far it had to look.", "depth"
        )
        self._verdicts = counter(
            "guard_verdicts",
            "Verdicts of the guard; outcome: refused, recorded, or shadow, which would have refused.",
            "principle",
            "place",
            "stage",
            "outcome",
        )
        self._scores = counter(
            "guard_scores",
            "Scores of requests' texts; outcome: hit, known from an earlier request, or miss.",
            "outcome",
        )
        self._closed = counter(
            "guard_closed_messages", "Messages of refused exchanges that were left out of prompts."
        )
        self._guarding = histogram("guard", "What the guard added to an exchange.", _QUICK, "depth")
        registry.register(_InterTokenCollector(self._gaps))

    def count_request(self, exchange: RequestRecord) -> None:
        """Count a finished HTTP request."""
        route = exchange.route or "other"
        method = exchange.method if exchange.method in _METHODS else "other"
        self._requests.labels(method, route, str(exchange.status)).inc()
        self._durations.labels(route).observe(exchange.seconds)
        if exchange.error:
            self._errors.labels(exchange.error).inc()

    def count_turn(self, record: TurnRecord) -> None:
        """Count a finished turn."""
        priority, usage, times = record.origin.priority, record.usage, record.times
        self._turns.labels(priority, record.outcome).inc()
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("cache_read", usage.cache_read_input_tokens),
            ("cache_write_5m", usage.cache_creation.ephemeral_5m_input_tokens),
            ("cache_write_1h", usage.cache_creation.ephemeral_1h_input_tokens),
            ("output", usage.output_tokens),
            ("thinking", usage.output_tokens_details.thinking_tokens),
        ):
            self._tokens.labels(kind).inc(tokens)
        for histogram, seconds in (
            (self._queue, times.queue),
            (self._prefill, times.prefill),
            (self._first, times.first_token),
            (self._total, times.total),
        ):
            if seconds is not None:
                histogram.labels(priority).observe(seconds)
        self._gaps[priority].merge(times.gaps)
        if record.findings is not None:
            self._count_findings(record.findings)

    def _count_findings(self, findings: Findings) -> None:
        depth = "judge" if findings.escalated else "encoder" if findings.encoded else "heads"
        self._screened.labels(depth).inc()
        self._guarding.labels(depth).observe(findings.seconds)
        self._scores.labels("hit").inc(findings.hits)
        self._scores.labels("miss").inc(findings.misses)
        self._closed.inc(findings.closed)
        if not findings.is_read:
            self._unread.inc()
        for verdict in findings.verdicts:
            outcome = "refused" if verdict.refuses else "shadow" if verdict.mode == "shadow" else "recorded"
            self._verdicts.labels(verdict.principle, verdict.place, verdict.stage, outcome).inc()


class _InterTokenCollector(Collector):
    """Histogram of inter-token latencies, which are counted per turn; the library's own cannot add counts."""

    def __init__(self, gaps: dict[Priority, TokenGaps]) -> None:
        self._gaps = gaps

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "commonweight_inter_token_seconds",
            "Waits for the tokens after the first. Tokens that come together share one.",
            labels=["priority"],
        )
        ends = [*map(str, GAP_BUCKETS_SECONDS), "+Inf"]
        for priority, gaps in self._gaps.items():
            family.add_metric([priority], list(zip(ends, accumulate(gaps.counts), strict=True)), gaps.seconds)
        yield family


def make_state_registry(assistant: Assistant, lifecycle: Lifecycle) -> CollectorRegistry:
    """Make a registry of values read at each scrape: engine, process, running requests, model."""
    registry = CollectorRegistry()
    running = Gauge("commonweight_http_requests_running", "Requests being answered.", registry=registry)
    running.set_function(lambda: lifecycle.running)
    info = Gauge("commonweight_info", "What is served.", ("version", "model"), registry=registry)
    info.labels(__version__, assistant.card.id).set(1)
    registry.register(_EngineCollector(assistant.engine))
    ProcessCollector(registry=registry)
    return registry


def format_metrics(*registries: CollectorRegistry) -> bytes:
    """Format all metrics of some registries in Prometheus's text format."""
    return b"".join(map(generate_latest, registries))


class _EngineCollector(Collector):
    """Metrics of the engine. Its counters start again at 0 when it restarts, as Prometheus expects."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats
        yield _make_gauge("ready", "1 unless weights are being loaded.", float(self._engine.is_ready))
        yield _make_gauge("jobs", "Jobs, by state.", {"running": stats.running, "waiting": stats.waiting}, "state")
        yield _make_gauge("kv_cells", "Tokens that the KV cache holds.", stats.cells)
        yield _make_gauge("kv_cells_used", "Of those, in use.", stats.cells_used)
        tiers = {"ram": stats.ram_bytes, "disk": stats.disk_bytes}
        yield _make_gauge("prefix_bytes", "Idle prefixes, by tier.", tiers, "tier")
        yield from _make_counters(stats)


def _make_counters(stats: Stats) -> Iterator[Metric]:
    reused = {
        "running": stats.shared_tokens,
        "ram": stats.ram_tokens,
        "disk": stats.disk_tokens,
        "remote": stats.remote_tokens,
    }
    yield _make_counter(
        "reused_tokens", "Prompt tokens that needed no computing, by where they were.", reused, "tier"
    )
    for name, text, value in (
        ("steps", "Batches computed.", stats.steps),
        ("step_seconds", "Time spent computing them.", stats.step_seconds),
        ("queue_seconds", "Time that jobs waited, all together.", stats.queue_seconds),
        ("prefilled_tokens", "Prompt tokens computed.", stats.prefilled_tokens),
        ("generated_tokens", "Tokens generated.", stats.generated_tokens),
        ("drafted_tokens", "Tokens guessed ahead.", stats.drafted_tokens),
        ("accepted_tokens", "Guesses that held.", stats.accepted_tokens),
        ("forced_tokens", "Tokens that a grammar left no choice about.", stats.forced_tokens),
        ("preemptions", "Jobs that had to make room.", stats.preemptions),
    ):
        yield _make_counter(name, text, value)


_Values = float | dict[str, float] | dict[str, int]


def _make_gauge(name: str, text: str, values: _Values, label: str | None = None) -> Metric:
    return _fill_family(GaugeMetricFamily(f"commonweight_engine_{name}", text, labels=_list_labels(label)), values)


def _make_counter(name: str, text: str, values: _Values, label: str | None = None) -> Metric:
    return _fill_family(
        CounterMetricFamily(f"commonweight_engine_{name}", text, labels=_list_labels(label)), values
    )


def _list_labels(label: str | None) -> list[str]:
    return [] if label is None else [label]


def _fill_family(family: GaugeMetricFamily | CounterMetricFamily, values: _Values) -> Metric:
    if isinstance(values, dict):
        for value, number in values.items():
            family.add_metric([value], number)
    else:
        family.add_metric([], values)
    return family
