"""Remember what an upstream refused and another took: a parameter, one of its values, a whole endpoint.

An upstream's 400 that names a parameter may be the client's mistake or the model's limit. It is the model's where
another model answered the very same request; only then is it remembered, for a while, and requests that hold the same
are not sent there again.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Set
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from router.parameters import FIXED
from router.turns import words_of

KEPT_S = 3600.0
MAX_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """A parameter that an upstream named in its refusal. `any_value`: it takes none, not just not this one.

    `word` is what it refused within a conversation: a role, or a type of a part.
    """

    parameter: str
    any_value: bool
    word: str | None = None


class _Known(NamedTuple):
    """What is refused of a parameter: a value, a word in it, or, with neither, all."""

    parameter: str
    value: str | None
    word: str | None


class Refusals:
    """What each upstream is known to refuse. Explanations read it in threads of their own."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Hashable, OrderedDict[_Known, float]] = {}

    @property
    def has_any(self) -> bool:
        """Whether anything was ever known against any upstream."""
        return bool(self._known)

    def remember(self, upstream: Hashable, refusal: Refusal, body: Mapping[str, object]) -> None:
        """Note that an upstream refused a request, for a parameter of its body; a whole conversation comes but once."""
        parameter, word = refusal.parameter, refusal.word
        if parameter in FIXED and word is None:
            return
        value = None if refusal.any_value or word is not None else _value(body.get(parameter))
        with self._lock:
            known = self._known.setdefault(upstream, OrderedDict())
            known[_Known(parameter, value, word)] = self._clock() + KEPT_S
            known.move_to_end(_Known(parameter, value, word))
            if len(known) > MAX_KEPT:
                known.popitem(last=False)

    def refused(self, upstream: Hashable, body: Mapping[str, object]) -> str | None:
        """The parameter of a body, or the word in it, that an upstream refused before; none where none is known."""
        if upstream not in self._known:
            return None
        with self._lock:
            known, now = self._known[upstream], self._clock()
            while known and next(iter(known.values())) <= now:  # the oldest stands first
                known.popitem(last=False)
            found = tuple(known)
        held: dict[tuple[str, bool], Set[str]] = {}  # each parameter is looked through once, however much is known
        for parameter, refused, word in found:
            if parameter not in body:
                continue
            if refused is None and word is None:
                return parameter
            kind = parameter, word is None
            if kind not in held:
                held[kind] = {_value(body[parameter])} if word is None else frozenset(words_of(body[parameter]))
            if (refused if word is None else word) in held[kind]:
                return word or parameter
        return None


def _value(value: object) -> str:
    return json.dumps(value, sort_keys=True)[:1000]
