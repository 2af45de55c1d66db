"""Remember what an upstream refused and another took: a parameter, one of its values, a whole endpoint.

An upstream's 400 that names a parameter may be the client's mistake or the model's limit. It is the model's where
another model answered the very same request; only then is it remembered, for a while, and requests that hold the same
are not sent there again.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from time import monotonic

KEPT_S = 3600.0
MAX_KEPT = 1000
ANY = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A parameter that an upstream named in its refusal. `any_value`: it takes none, not just not this one."""

    parameter: str
    any_value: bool


class Refusals:
    """What each upstream is known to refuse."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._known: dict[Hashable, OrderedDict[tuple[str, str], float]] = {}

    @property
    def has_any(self) -> bool:
        """Whether anything was ever known against any upstream."""
        return bool(self._known)

    def remember(self, upstream: Hashable, refusal: Refusal, body: Mapping[str, object]) -> None:
        """Note that an upstream refused a request, for a parameter of its body."""
        value = ANY if refusal.any_value else _value(body.get(refusal.parameter))
        known = self._known.setdefault(upstream, OrderedDict())
        known[refusal.parameter, value] = self._clock() + KEPT_S
        known.move_to_end((refusal.parameter, value))
        if len(known) > MAX_KEPT:
            known.popitem(last=False)

    def refused(self, upstream: Hashable, body: Mapping[str, object]) -> str | None:
        """The parameter of a body that an upstream refused before; none where nothing is known against it."""
        known = self._known.get(upstream)
        if known is None:
            return None
        now = self._clock()
        for key in [key for key, until in known.items() if until <= now]:
            del known[key]
        for parameter, value in known:
            if parameter in body and (value == ANY or value == _value(body[parameter])):
                return parameter
        return None


def _value(value: object) -> str:
    return json.dumps(value, sort_keys=True)[:1000]
