"""A circuit breaker for each upstream: one that keeps failing is not asked for a while.

Closed: asked. Open: not asked until its time is over. Half open: asked once, by one request; if that is answered the
circuit closes, if not it opens again for twice as long (Nygard, Release It!, 2007). A 429 with a Retry-After opens it
for exactly as long as it says. Plain bookkeeping on a clock that is given: no waiting, no I/O.
"""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a circuit opens and for how long: `n_failures` within `window_s` open it for `open_s`, at most `max_open_s`.

    `max_retry_after_s` is the longest wait that an upstream's Retry-After is believed.
    """

    n_failures: int = 5
    window_s: float = 30.0
    open_s: float = 10.0
    max_open_s: float = 300.0
    max_retry_after_s: float = 3600.0


@dataclass(slots=True)
class Circuit:
    """One upstream's circuit. `open_until` is on the clock; `limited` where a 429 opened it."""

    failed_at: deque[float] = field(default_factory=deque)
    open_until: float = 0.0
    opened_for_s: float = 0.0
    limited: bool = False
    probe_until: float = 0.0


class Breakers:
    """The circuits of all upstreams; one that never failed has none."""

    def __init__(self, rules: BreakerRules | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._rules = rules or BreakerRules()
        self._clock = clock
        self._circuits: dict[Hashable, Circuit] = {}

    @property
    def has_failures(self) -> bool:
        """Whether any upstream failed lately; nearly always none did, and every circuit is closed."""
        return bool(self._circuits)

    def state(self, upstream: Hashable) -> State:
        """Whether an upstream may be asked. Half open with its probe out is open to everyone else."""
        circuit = self._circuits.get(upstream)
        if circuit is None or not circuit.open_until:
            return "closed"
        now = self._clock()
        if now < circuit.open_until or now < circuit.probe_until:
            return "open"
        return "half_open"

    def retry_after_s(self, upstream: Hashable) -> float | None:
        """How long an upstream that is out of quota said to wait, from now; none where it did not."""
        if not self._circuits:
            return None
        circuit = self._circuits.get(upstream)
        if circuit is None or not circuit.limited:
            return None
        left = circuit.open_until - self._clock()
        return left if left > 0 else None

    def ask(self, upstream: Hashable, within_s: float) -> None:
        """Note that an upstream is asked: half open, this is its probe, which is given up `within_s` at the latest."""
        if self.state(upstream) == "half_open":
            self._circuits[upstream].probe_until = self._clock() + within_s

    def succeeded(self, upstream: Hashable) -> None:
        """Close an open circuit; in a closed one, forgive the oldest failure: one in a hundred is no outage."""
        circuit = self._circuits.get(upstream)
        if circuit is None or self.retry_after_s(upstream) is not None:  # a request from before the 429
            return
        if not circuit.open_until and len(circuit.failed_at) > 1:
            circuit.failed_at.popleft()
        else:
            del self._circuits[upstream]

    def failed(self, upstream: Hashable, retry_after_s: float | None = None) -> None:
        """Note a failure; `retry_after_s` is a 429's own wait."""
        now, rules = self._clock(), self._rules
        circuit = self._circuits.setdefault(upstream, Circuit())
        circuit.probe_until = 0.0
        if retry_after_s is not None:
            circuit.open_until = max(circuit.open_until, now + min(retry_after_s, rules.max_retry_after_s))
            circuit.limited = True
            return
        circuit.failed_at.append(now)
        while circuit.failed_at[0] < now - rules.window_s:
            circuit.failed_at.popleft()
        if 0 < circuit.open_until <= now:  # its probe failed
            circuit.opened_for_s = min(2 * circuit.opened_for_s or rules.open_s, rules.max_open_s)
        elif len(circuit.failed_at) >= rules.n_failures and not circuit.open_until:
            circuit.opened_for_s = rules.open_s
        else:
            return
        circuit.open_until, circuit.limited = now + circuit.opened_for_s, False
        circuit.failed_at.clear()

    def abandoned(self, upstream: Hashable) -> None:
        """Note that nothing was learned, the client having left: the next request may probe."""
        if upstream in self._circuits:
            self._circuits[upstream].probe_until = 0.0
