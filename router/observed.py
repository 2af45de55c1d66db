"""What serving has seen of its upstreams lately: who fails, who refuses what, who is slow.

It lives in memory, for this process; a decision reads it and says in its reasons what it read.
"""

from dataclasses import dataclass, field

from router.breaker import Breakers
from router.pool import Upstream
from router.refusals import Refusals

WEIGHT = 0.2  # of the newest answer in the running mean


@dataclass(slots=True)
class Latencies:
    """The running mean of how long each upstream's whole answers take, in seconds."""

    mean_s: dict[Upstream, float] = field(default_factory=dict)

    def add(self, upstream: Upstream, latency_s: float) -> None:
        before = self.mean_s.get(upstream, latency_s)
        self.mean_s[upstream] = before + WEIGHT * (latency_s - before)


@dataclass(slots=True)
class Observed:
    """All of it; a new one knows nothing against anyone."""

    breakers: Breakers = field(default_factory=Breakers)
    refusals: Refusals = field(default_factory=Refusals)
    latencies: Latencies = field(default_factory=Latencies)
    usage_takers: set[Upstream] = field(default_factory=set)  # those that were seen to take `stream_options`
