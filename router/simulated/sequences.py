"""Find the rule of a number sequence, and wrongly: a term skipped, the last step repeated, the last two added."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from router.simulated.reading import Method, Reading

_TERMS = re.compile(r"-?\d+(?:, -?\d+){2,}")
_ASKED = re.compile(r"comes next|sequence|next term|and then\?|pattern|missing at the end", re.I)


def read(prompt: str) -> Reading | None:
    """Parse a sequence; none when it is something else, or follows no rule known here."""
    found = _TERMS.search(prompt)
    if found is None or not _ASKED.search(prompt):
        return None
    terms = [int(term) for term in found.group().split(", ")]
    for difficulty, words, rule in _RULES:
        following = rule(terms)
        if following is None:
            continue
        size = len(str(max(abs(term) for term in terms)))
        second = rule([*terms, following])
        skipped = second if second is not None and second != following else following + 1
        return Reading(
            family="sequences",
            difficulty=difficulty + 0.5 * size,
            right=Method(words, str(following)),
            slips={
                "careless": Method(f"{words}, and skipped a term", str(skipped)),
                "shortcut": Method("repeated the last step", str(2 * terms[-1] - terms[-2])),
                "confused": Method("added the last two terms", str(terms[-1] + terms[-2])),
            },
        )
    return None


def _constant_step(terms: Sequence[int]) -> int | None:
    steps = {b - a for a, b in pairwise(terms)}
    return terms[-1] + steps.pop() if len(steps) == 1 else None


def _constant_ratio(terms: Sequence[int]) -> int | None:
    if 0 in terms or terms[1] % terms[0]:
        return None
    ratio = terms[1] // terms[0]
    return terms[-1] * ratio if all(b == a * ratio for a, b in pairwise(terms)) else None


def _two_added(terms: Sequence[int]) -> int | None:
    matches = all(c == a + b for a, b, c in zip(terms, terms[1:], terms[2:], strict=False))
    return terms[-1] + terms[-2] if matches else None


def _constant_growth(terms: Sequence[int]) -> int | None:
    steps = [b - a for a, b in pairwise(terms)]
    following = _constant_step(steps) if len(steps) > 2 else None
    return None if following is None else terms[-1] + following


def _times_plus(terms: Sequence[int]) -> int | None:
    for factor in (2, 3, 4):
        added = terms[1] - factor * terms[0]
        if all(b == factor * a + added for a, b in pairwise(terms)):
            return factor * terms[-1] + added
    return None


def _interleaved(terms: Sequence[int]) -> int | None:
    one, other = terms[-2::-2][::-1], terms[-1::-2][::-1]
    if len(one) < 3 or len(other) < 3 or _constant_step(other) is None:
        return None
    return _constant_step(one)


_RULES: tuple[tuple[float, str, Callable[[Sequence[int]], int | None]], ...] = (
    (0.0, "found a constant step", _constant_step),
    (2.5, "found a constant factor", _constant_ratio),
    (4.5, "saw that each term adds the two before it", _two_added),
    (4.5, "saw the steps themselves grow by a constant", _constant_growth),
    (7.0, "found a factor and an addend", _times_plus),
    (8.0, "saw two sequences in turns", _interleaved),
)
