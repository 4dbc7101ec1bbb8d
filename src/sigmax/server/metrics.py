"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_QUERIES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("sigmax_requests", "Requests answered.", ("path", "status"), registry=self.registry)
        self.seconds = Histogram(
            "sigmax_request_seconds",
            "From a request's head to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "sigmax_batch_queries",
            "Queries that a model answered together.",
            ("model",),
            buckets=_QUERIES,
            registry=self.registry,
        )
        self.waiting = Gauge("sigmax_waiting_queries", "Queries in the queue.", ("model",), registry=self.registry)
        self.reloads = Counter(
            "sigmax_reloads", "Newer models loaded, or not.", ("model", "outcome"), registry=self.registry
        )

        self.window = Gauge(
            "sigmax_window",
            "The last 1,000 queries: how many, means of best logit, any right and accepted, part unlike dev's.",
            ("model", "sign"),
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return all, in Prometheus's text format."""
        return generate_latest(self.registry)
