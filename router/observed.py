"""What serving has seen of its upstreams lately: who fails, who refuses what, who is slow.

It lives in memory, for this process; a decision reads it and says in its reasons what it read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from router.breaker import Breakers
from router.pool import Upstream
from router.refusals import Refusals

WEIGHT = 0.2  # of the newest answer in the running mean
LATELY_S = 60.0  # older ones say nothing of today: who was slow once must be tried again


@dataclass(slots=True)
class Latencies:
    """The running mean of how long each upstream's whole answers lately took, in seconds."""

    clock: Callable[[], float] = monotonic
    _seen: dict[Upstream, tuple[float, float]] = field(default_factory=dict)  # the mean, and until when it holds

    def add(self, upstream: Upstream, latency_s: float) -> None:
        before = self.mean_s(upstream)
        mean_s = latency_s if before is None else before + WEIGHT * (latency_s - before)
        self._seen[upstream] = mean_s, self.clock() + LATELY_S

    def mean_s(self, upstream: Upstream) -> float | None:
        """How long its answers take; none where it gave none lately."""
        mean_s, until = self._seen.get(upstream, (0.0, 0.0))
        return mean_s if self.clock() < until else None


@dataclass(slots=True)
class Observed:
    """All of it; a new one knows nothing against anyone."""

    breakers: Breakers = field(default_factory=Breakers)
    refusals: Refusals = field(default_factory=Refusals)
    latencies: Latencies = field(default_factory=Latencies)
    usage_takers: set[Upstream] = field(default_factory=set)  # those that were seen to take `stream_options`
