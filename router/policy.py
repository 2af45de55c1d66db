"""Choose between models: arithmetic on P(correct) and expected cost, and nothing else.

A policy orders the candidates: the first is asked, the others are its fallbacks in turn. Every policy here is
deterministic, so the first choice has propensity 1 and the others 0; a policy that explores would say otherwise.
An unknown price is never taken for 0: it counts as the dearest, or excludes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import Literal, NamedTuple

PolicyName = Literal["quality", "balanced", "cheapest", "fixed"]
Abstain = Literal["refuse", "default_model"]
POLICY_NAMES: tuple[PolicyName, ...] = ("quality", "balanced", "cheapest", "fixed")
UNPRICED = "its price is unknown"
UNCOUNTED = "the length of its answers is unknown"


class Candidate(NamedTuple):
    """A model that could answer. `expected_cost_usd` is of this request; none is unknown, and then `why_unknown`."""

    model: str
    p_correct: float
    expected_cost_usd: float | None
    why_unknown: str = UNPRICED


@dataclass(frozen=True, slots=True)
class Policy:
    """How to choose.

    quality: the most likely correct. balanced: the highest P(correct) - usd_weight x expected cost in USD, so that
    1 / usd_weight is what a correct answer is worth. cheapest: the cheapest with P(correct) >= min_p_correct. fixed:
    those that the caller puts first, whatever the forecast. `default_model` is asked where no forecast can be made: the
    text is empty, or more novel to the logs than `max_novelty`, none being what the artifact says.
    `max_error` bounds the share of wrong ones among the answers of `quality`: where no model is sure enough for it, the
    request is refused or goes to the default model, as `abstain` says.
    """

    name: PolicyName = "quality"
    usd_weight: float = 10.0
    min_p_correct: float = 0.7
    default_model: str | None = None
    max_error: float | None = None
    abstain: Abstain = "refuse"
    max_novelty: float | None = None

    @property
    def error_limit(self) -> float | None:
        """The limit on errors that holds; none where there is none, or where another policy chooses."""
        return self.max_error if self.name == "quality" and (self.max_error or 0.0) < 1 else None

    def as_json(self) -> dict[str, object]:
        """Every field, for records."""
        return {name: getattr(self, name) for name in _POLICY_FIELDS}

    def settings(self) -> dict[str, float]:
        """The numbers that this policy reads, for records."""
        if self.name == "balanced":
            return {"lambda": self.usd_weight}
        if self.error_limit is not None:
            return {"max_error": self.error_limit}
        return {"min_p_correct": self.min_p_correct} if self.name == "cheapest" else {}


_POLICY_FIELDS = tuple(field.name for field in fields(Policy))


class Ranking(NamedTuple):
    """Candidates in the order to ask them, each one's probability of being asked first, and who is out and why."""

    order: tuple[Candidate, ...]
    propensities: tuple[float, ...]
    excluded: dict[str, str]
    note: str | None = None


def rank(candidates: Sequence[Candidate], policy: Policy, first: Sequence[str] = ()) -> Ranking:
    """Order candidates under a policy; the models named in `first`, where they are candidates, stand before it.

    Those are asked whatever they cost, as if no price were unknown.
    """
    place = {model: position for position, model in enumerate(first)}
    named = [candidate for candidate in candidates if candidate.model in place] if place else []
    if not named:
        return _rank(candidates, policy)
    rest = _rank([candidate for candidate in candidates if candidate.model not in place], policy)
    named.sort(key=lambda candidate: place[candidate.model])
    return _ranking([*named, *rest.order], rest.excluded, rest.note)


def _rank(candidates: Sequence[Candidate], policy: Policy) -> Ranking:
    if policy.name in ("quality", "fixed") or not candidates:
        return _ranking(sorted(candidates, key=by_quality))
    priced = [candidate for candidate in candidates if candidate.expected_cost_usd is not None]
    excluded = {c.model: c.why_unknown for c in candidates if c.expected_cost_usd is None}
    if not priced:
        note = f"no candidate has a price, so {policy.name} could not compare costs: chosen by quality"
        return _ranking(sorted(candidates, key=by_quality), note=note)
    n_uncounted = sum(reason == UNCOUNTED for reason in excluded.values())
    counts = ((len(excluded) - n_uncounted, "a price"), (n_uncounted, "answers of a known length"))
    n_unpriced = ", ".join(f"{n} without {what} left out" for n, what in counts if n) or None
    if policy.name == "balanced":
        return _ranking(sorted(priced, key=by_value(policy.usd_weight)), excluded, n_unpriced)
    passing = sorted((c for c in priced if c.p_correct >= policy.min_p_correct), key=by_cost)
    rest = sorted((c for c in priced if c.p_correct < policy.min_p_correct), key=by_quality)
    none_passes = f"no candidate reaches P(correct) {policy.min_p_correct:g}: the most likely correct"
    notes = [note for note in (None if passing else none_passes, n_unpriced) if note]
    return _ranking(passing + rest, excluded, "; ".join(notes) or None)


def cost_or_dearest(candidate: Candidate) -> float:
    return inf if candidate.expected_cost_usd is None else candidate.expected_cost_usd


def by_quality(candidate: Candidate) -> tuple[float, float, str]:
    """The likeliest first, ties to the cheaper, then by name."""
    cost_usd = candidate.expected_cost_usd
    return -candidate.p_correct, inf if cost_usd is None else cost_usd, candidate.model


def by_cost(candidate: Candidate) -> tuple[float, float, str]:
    """The cheapest first, ties to the likelier, then by name."""
    return cost_or_dearest(candidate), -candidate.p_correct, candidate.model


def by_value(usd_weight: float) -> Callable[[Candidate], tuple[float, float, str]]:
    """The highest P(correct) - usd_weight x cost first, ties to the cheaper, then by name."""

    def key(candidate: Candidate) -> tuple[float, float, str]:
        cost = cost_or_dearest(candidate)
        return usd_weight * cost - candidate.p_correct, cost, candidate.model

    return key


def _ranking(order: list[Candidate], excluded: dict[str, str] | None = None, note: str | None = None) -> Ranking:
    propensities = (1.0, *(0.0,) * (len(order) - 1)) if order else ()
    return Ranking(tuple(order), propensities, excluded or {}, note)
