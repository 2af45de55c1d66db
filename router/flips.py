"""What would flip a choice: for each rival, the smallest change that puts it first. Arithmetic, as the policy is.

Every answer is checked against the very function that chose: the change is made, the candidates are ranked again, and
only what then stands first is said.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, nextafter

from router.policy import Candidate, Policy, rank

N_RIVALS = 3
STEPS = 40  # halvings of the interval: beyond what a float of a probability can tell


@dataclass(frozen=True, slots=True)
class Flip:
    """`model` would be chosen if `change` went `before` -> `after`, all else as it is."""

    model: str
    change: str
    before: float
    after: float

    def as_json(self) -> dict[str, object]:
        return {"model": self.model, "change": self.change, "from": self.before, "to": self.after}


def flips(candidates: Sequence[Candidate], policy: Policy, first: Sequence[str] = ()) -> list[Flip]:
    """The smallest changes that would put another model first; candidates in the order of the decision."""
    if len(candidates) < 2 or first:
        return []  # a model that was asked for outright stays first whatever is forecast
    choice = candidates[0]
    found: list[Flip] = []
    for rival in candidates[1 : 1 + N_RIVALS]:
        found += _by_forecast(candidates, policy, choice, rival)
    return [*found, *_by_policy(candidates, policy, choice)]


def _by_forecast(
    candidates: Sequence[Candidate], policy: Policy, choice: Candidate, rival: Candidate
) -> Iterator[Flip]:
    """How far the rival's P(correct) would have to rise, and the choice's to fall."""

    def chosen(model: str, p_correct: float) -> str:
        changed = [c._replace(p_correct=p_correct) if c.model == model else c for c in candidates]
        return rank(changed, policy).order[0].model

    if (p := _least(rival.p_correct, 1.0, lambda p: chosen(rival.model, p) == rival.model)) is not None:
        yield Flip(rival.model, f"P(correct) of {rival.model}", rival.p_correct, p)
    if (p := _least(choice.p_correct, 0.0, lambda p: chosen(choice.model, p) == rival.model)) is not None:
        yield Flip(rival.model, f"P(correct) of {choice.model}", choice.p_correct, p)


def _by_policy(candidates: Sequence[Candidate], policy: Policy, choice: Candidate) -> Iterator[Flip]:
    """How the policy's own number would have to change, up or down: lambda, or the least P(correct)."""
    if policy.name == "balanced":
        name, now, most = "lambda", policy.usd_weight, inf
        limits = [_crossing(choice, rival) for rival in candidates[1:]]
        at = [
            side for limit in limits if limit is not None for side in (limit * (1 - 1e-9), limit * (1 + 1e-9))
        ]  # just short, just beyond
    elif policy.name == "cheapest":
        name, now, most = "min_p_correct", policy.min_p_correct, 1.0
        at = [side for candidate in candidates for side in (candidate.p_correct, nextafter(candidate.p_correct, inf))]
    else:
        return

    def chosen(value: float) -> str:
        by_lambda, by_least = replace(policy, usd_weight=value), replace(policy, min_p_correct=value)
        return rank(candidates, by_lambda if name == "lambda" else by_least).order[0].model

    flipping = [value for value in at if 0 <= value <= most and chosen(value) != choice.model]
    for values in (sorted((v for v in flipping if v < now), reverse=True), sorted(v for v in flipping if v > now)):
        for value in values[:1]:
            yield Flip(chosen(value), name, now, value)


def _crossing(choice: Candidate, rival: Candidate) -> float | None:
    """The lambda at which two models are worth the same."""
    if choice.expected_cost_usd is None or rival.expected_cost_usd is None:
        return None
    dearer_usd = rival.expected_cost_usd - choice.expected_cost_usd
    return (rival.p_correct - choice.p_correct) / dearer_usd if dearer_usd else None


def _least(start: float, end: float, holds: Callable[[float], bool]) -> float | None:
    """The value nearest to `start`, towards `end`, at which a condition holds; none where it does not at `end`."""
    if not holds(end):
        return None
    no, yes = start, end
    for _ in range(STEPS):
        middle = (no + yes) / 2
        if holds(middle):
            yes = middle
        else:
            no = middle
    return yes
