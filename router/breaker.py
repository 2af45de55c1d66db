"""A circuit breaker for each upstream: one that keeps failing is not asked for a while.

Closed: asked. Open: not asked until its time is over. Half open: asked once, by one request that has
others to ask; if that is answered the circuit closes, if not it opens again for twice as long (Nygard, Release It!,
2007). A 429 with a Retry-After opens it
for exactly as long as it says. Plain bookkeeping on a clock that is given: no waiting, no I/O.
"""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a circuit opens and for how long: `n_failures` within `window_s` open it for `open_s`, at most `max_open_s`.

    They must be in a row, or `failure_share` of what was asked since the first of them: one in a hundred is no outage.
    `max_retry_after_s` is the longest wait that an upstream's Retry-After is believed.
    """

    n_failures: int = 5
    failure_share: float = 0.5
    window_s: float = 30.0
    open_s: float = 10.0
    max_open_s: float = 300.0
    max_retry_after_s: float = 3600.0


@dataclass(slots=True)
class Circuit:
    """One upstream's circuit. `open_until` and `opened_at` are on the clock; `limited` where a 429 opened it."""

    failed_at: deque[float] = field(default_factory=deque)
    succeeded_at: deque[float] = field(default_factory=deque)
    n_in_a_row: int = 0
    open_until: float = 0.0
    opened_at: float = 0.0
    opened_for_s: float = 0.0
    limited: bool = False
    probe_until: float = 0.0

    def forget(self, before: float) -> None:
        """Let go of what was seen before a time."""
        for seen_at in (self.failed_at, self.succeeded_at):
            while seen_at and seen_at[0] < before:
                seen_at.popleft()


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

    def ask(self, upstream: Hashable, within_s: float) -> float:
        """Note that an upstream is asked: half open, this is its probe, which is given up `within_s` at the latest.

        Returns when that was, for `succeeded`.
        """
        if not self._circuits:
            return 0.0  # before any circuit opened
        now = self._clock()
        if self.state(upstream) == "half_open":
            self._circuits[upstream].probe_until = now + within_s
        return now

    def succeeded(self, upstream: Hashable, asked_at: float = inf) -> None:
        """Close an open circuit; in a closed one, weigh against its failures.

        One that opened after the request was asked stays open: its answer tells of the time before.
        """
        circuit = self._circuits.get(upstream)
        if circuit is None or self.retry_after_s(upstream) is not None:  # a request from before the 429
            return
        if circuit.open_until:
            if asked_at >= circuit.opened_at:
                del self._circuits[upstream]
            return
        now = self._clock()
        circuit.n_in_a_row = 0
        circuit.succeeded_at.append(now)
        circuit.forget(now - self._rules.window_s)
        if not circuit.failed_at:
            del self._circuits[upstream]

    def failed(self, upstream: Hashable, retry_after_s: float | None = None, asked_at: float = inf) -> None:
        """Note a failure; `retry_after_s` is a 429's own wait.

        Where the circuit opened after the request was asked, it tells nothing new, nor of a probe that is out.
        """
        now, rules = self._clock(), self._rules
        circuit = self._circuits.setdefault(upstream, Circuit())
        if circuit.open_until and asked_at < circuit.opened_at and retry_after_s is None:
            return
        circuit.probe_until = 0.0
        if retry_after_s is not None:
            circuit.open_until = max(circuit.open_until, now + min(retry_after_s, rules.max_retry_after_s))
            circuit.opened_at, circuit.limited = now, True
            return
        circuit.failed_at.append(now)
        circuit.n_in_a_row += 1
        circuit.forget(now - rules.window_s)
        n_failed = len(circuit.failed_at)
        in_a_row = circuit.n_in_a_row >= rules.n_failures
        is_outage = in_a_row or n_failed >= rules.failure_share * (n_failed + len(circuit.succeeded_at))
        if 0 < circuit.open_until <= now:  # its probe failed
            circuit.opened_for_s = min(2 * circuit.opened_for_s or rules.open_s, rules.max_open_s)
        elif n_failed >= rules.n_failures and is_outage and not circuit.open_until:
            circuit.opened_for_s = rules.open_s
        else:
            return
        circuit.opened_at, circuit.open_until, circuit.limited = now, now + circuit.opened_for_s, False
        circuit.forget(inf)

    def abandoned(self, upstream: Hashable) -> None:
        """Note that nothing was learned, the client having left: the next request may probe."""
        if upstream in self._circuits:
            self._circuits[upstream].probe_until = 0.0
