"""What Prometheus is told: how many requests, how long, and what waits. No label holds a prompt, a key or a user.

Each application counts in a registry of its own; `router.admin` shows it on a port that only this machine reaches.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from math import nan

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from router.decision import Decision
from router.policy import UNPRICED

OVERHEAD_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
TTFT_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The service's counters, histograms and gauges."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "embedrouter_requests",
            "Requests answered, by path, status, answering model and policy.",
            ["endpoint", "status", "model", "policy"],
            registry=self.registry,
        )
        self._fallbacks = Counter(
            "embedrouter_fallbacks",
            "Attempts that failed and were followed by another, by the model that failed and how.",
            ["model", "error"],
            registry=self.registry,
        )
        self._unpriced = Counter(
            "embedrouter_unpriced_requests",
            "Routed requests with a model of unknown price: it answered, or a cost policy left it out.",
            registry=self.registry,
        )
        self._overhead = Histogram(
            "embedrouter_overhead_seconds",
            "What the router added to a request: all of its time that was not spent in attempts.",
            buckets=OVERHEAD_BUCKETS,
            registry=self.registry,
        )
        self._route = Histogram(
            "embedrouter_route_seconds",
            "What encoding, scoring and choosing took.",
            buckets=OVERHEAD_BUCKETS,
            registry=self.registry,
        )
        self._ttft = Histogram(
            "embedrouter_ttft_seconds",
            "Time to the first chunk of a streamed answer.",
            buckets=TTFT_BUCKETS,
            registry=self.registry,
        )
        self._request_counters: dict[tuple[str, int, str, str], Counter] = {}  # finding one by labels takes a lock
        self.n_in_flight = 0
        in_flight = Gauge("embedrouter_in_flight", "Requests that are being answered.", registry=self.registry)
        in_flight.set_function(lambda: self.n_in_flight)
        self._queue_depth = Gauge(
            "embedrouter_encoder_queue_depth", "Prompts that wait to be encoded.", registry=self.registry
        )
        self._spooled = Gauge(
            "embedrouter_records_spooled", "Records that wait for the database.", registry=self.registry
        )
        self._age = Gauge(
            "embedrouter_artifact_age_seconds",
            "Time since the artifact that serves was made; NaN without one.",
            registry=self.registry,
        )

    def watch(
        self,
        *,
        encoder_queue_depth: Callable[[], float],
        records_spooled: Callable[[], float],
        artifact_made_at: Callable[[], datetime | None],
    ) -> None:
        """Say where the gauges look when they are read."""

        def age() -> float:
            made_at = artifact_made_at()
            return nan if made_at is None else (datetime.now(UTC) - made_at).total_seconds()

        self._queue_depth.set_function(encoder_queue_depth)
        self._spooled.set_function(records_spooled)
        self._age.set_function(age)

    def count_request(self, endpoint: str, status: int, model: str, policy: str) -> None:
        key = (endpoint, status, model, policy)
        counter = self._request_counters.get(key)
        if counter is None:
            labels = (endpoint, str(status), model, policy)
            counter = self._request_counters[key] = self._requests.labels(*labels)
        counter.inc()

    def observe(self, decision: Decision) -> None:
        """Count a finished decision."""
        self._overhead.observe(decision.overhead_s)
        if decision.artifact_id is not None:
            self._route.observe(decision.route_s)
        if decision.ttft_s is not None:
            self._ttft.observe(decision.ttft_s)
        for attempt in decision.attempts[:-1]:
            self._fallbacks.labels(attempt.model, attempt.error or "none").inc()
        if _unpriced(decision):
            self._unpriced.inc()


def _unpriced(decision: Decision) -> bool:
    """Whether a model of unknown price answered, or was left out because of it."""
    answered = decision.answered
    if answered is not None and not answered.entry.is_priced and decision.cost_usd is None:
        return True
    return any((option.excluded or "").startswith(UNPRICED) for option in decision.others)
