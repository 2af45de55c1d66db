"""What one model's upstream takes otherwise than others: parameters to rename, to drop, to add.

Plain functions on a body; the request's own dict is never changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# what a request is made of; a rule on one of these would make another request of it
FIXED = frozenset({"model", "messages", "prompt", "input", "stream"})


@dataclass(frozen=True, slots=True)
class ParameterRules:
    """rename: (from, to) pairs; drop: parameters never sent; require: (name, value) sent where the request has none.

    They hold in this order: what was renamed may be dropped, and what was dropped may be required.
    """

    rename: tuple[tuple[str, str], ...] = ()
    drop: frozenset[str] = frozenset()
    require: tuple[tuple[str, object], ...] = ()

    def apply(self, body: Mapping[str, object]) -> dict[str, object]:
        """Rewrite a body. Where both names of a renaming stand in it, the new one's value is kept."""
        sent = dict(body)
        for old, new in self.rename:
            if old in sent:
                value = sent.pop(old)
                sent.setdefault(new, value)
        for name in self.drop:
            sent.pop(name, None)
        for name, value in self.require:
            sent.setdefault(name, value)
        return sent

    def name_before(self, name: str) -> str:
        """What a request calls a parameter that is sent under this name."""
        return next((old for old, new in self.rename if new == name), name)


AS_IT_COMES = ParameterRules()
