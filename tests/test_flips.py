"""What would flip a choice is what the policy itself says it would."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.flips import Flip, flips
from router.policy import Candidate, Policy, rank

BIG, SMALL = Candidate("big", 0.9, 0.02), Candidate("small", 0.8, 0.01)


def by_change(found: list[Flip]) -> dict[str, float]:
    """Where each change has to go; all of them choose the small model."""
    assert {flip.model for flip in found} == {"small"}
    return {flip.change: flip.after for flip in found}


def test_by_quality_the_forecasts_would_have_to_meet() -> None:
    found = by_change(flips([BIG, SMALL], Policy("quality")))
    assert found["P(correct) of small"] == pytest.approx(0.9)  # ties go to the cheaper
    assert found["P(correct) of big"] == pytest.approx(0.8)


def test_balanced_flips_at_the_lambda_where_both_are_worth_the_same() -> None:
    found = by_change(flips([BIG, SMALL], Policy("balanced", usd_weight=5.0)))
    assert found["lambda"] == pytest.approx((0.9 - 0.8) / (0.02 - 0.01))
    assert found["P(correct) of small"] == pytest.approx(0.9 - 5 * 0.01)


def test_cheapest_flips_where_the_cheap_one_no_longer_passes_or_a_cheaper_one_does() -> None:
    tiny = Candidate("tiny", 0.3, 0.001)
    found = flips([SMALL, BIG, tiny], Policy("cheapest", min_p_correct=0.7))
    down, up = [flip for flip in found if flip.change == "min_p_correct"]
    assert (down.model, down.after) == ("tiny", 0.3)
    assert (up.model, up.after) == ("big", math.nextafter(0.8, 1.0))


def test_a_single_candidate_or_a_fixed_one_has_nothing_to_flip() -> None:
    assert flips([BIG], Policy()) == []
    assert flips([BIG, SMALL], Policy(), first=("big",)) == []


costs = st.none() | st.floats(0, 1)
pools = st.lists(st.tuples(st.floats(0, 1), costs), min_size=2, max_size=6)
policies = st.sampled_from(
    [Policy("quality"), Policy("balanced", usd_weight=3.0), Policy("cheapest", min_p_correct=0.5)]
)


@given(pools, policies)
def test_every_flip_that_is_said_does_flip(pool: list[tuple[float, float | None]], policy: Policy) -> None:
    candidates = list(rank([Candidate(f"m{i}", p, cost) for i, (p, cost) in enumerate(pool)], policy).order)
    for flip in flips(candidates, policy):
        changed, other = candidates, policy
        if flip.change == "lambda":
            other = replace(policy, usd_weight=flip.after)
        elif flip.change == "min_p_correct":
            other = replace(policy, min_p_correct=flip.after)
        else:
            model = flip.change.removeprefix("P(correct) of ")
            changed = [c._replace(p_correct=flip.after) if c.model == model else c for c in candidates]
        assert rank(changed, other).order[0].model == flip.model != candidates[0].model
