"""The policies: what they choose, and the laws they keep."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy import POLICY_NAMES, Candidate, Policy, rank

STRONG = Candidate("strong", 0.9, 0.010)
MIDDLE = Candidate("middle", 0.8, 0.002)
WEAK = Candidate("weak", 0.4, 0.0001)
UNPRICED = Candidate("unpriced", 0.95, None)


def names(candidates: list[Candidate], policy: Policy) -> list[str]:
    return [candidate.model for candidate in rank(candidates, policy).order]


def test_quality_asks_the_likeliest_first_and_prices_do_not_matter() -> None:
    assert names([WEAK, MIDDLE, STRONG, UNPRICED], Policy("quality")) == ["unpriced", "strong", "middle", "weak"]


def test_quality_ties_go_to_the_cheaper_and_an_unknown_price_is_the_dearest() -> None:
    tied = [Candidate("b", 0.5, None), Candidate("a", 0.5, 2.0), Candidate("d", 0.5, 1.0), Candidate("c", 0.5, 1.0)]
    assert names(tied, Policy("quality")) == ["c", "d", "a", "b"]


def test_balanced_weighs_a_dollar_by_lambda() -> None:
    # strong 0.9 - 0.01 w, middle 0.8 - 0.002 w: level at w = 12.5
    assert names([STRONG, MIDDLE], Policy("balanced", usd_weight=12.4)) == ["strong", "middle"]
    assert names([STRONG, MIDDLE], Policy("balanced", usd_weight=12.6)) == ["middle", "strong"]


@pytest.mark.parametrize("name", ["balanced", "cheapest"])
def test_cost_policies_leave_an_unknown_price_out_and_count_it(name: str) -> None:
    ranking = rank([STRONG, UNPRICED], Policy("balanced" if name == "balanced" else "cheapest"))
    assert [candidate.model for candidate in ranking.order] == ["strong"]
    assert ranking.excluded == {"unpriced": "its price is unknown"}
    assert ranking.note == "1 without a price left out"


def test_without_any_price_a_cost_policy_chooses_by_quality_and_says_so() -> None:
    ranking = rank([Candidate("a", 0.2, None), UNPRICED], Policy("cheapest"))
    assert [candidate.model for candidate in ranking.order] == ["unpriced", "a"]
    assert ranking.excluded == {}
    assert ranking.note is not None
    assert "no candidate has a price" in ranking.note


def test_cheapest_takes_the_cheapest_that_passes_and_falls_back_on_the_rest() -> None:
    assert names([STRONG, MIDDLE, WEAK], Policy("cheapest", min_p_correct=0.7)) == ["middle", "strong", "weak"]


def test_cheapest_with_none_passing_takes_the_likeliest_and_says_so() -> None:
    ranking = rank([MIDDLE, WEAK, STRONG], Policy("cheapest", min_p_correct=0.99))
    assert ranking.order[0].model == "strong"
    assert ranking.note == "no candidate reaches P(correct) 0.99: the most likely correct"


def test_no_candidates_rank_as_none() -> None:
    assert rank([], Policy("balanced")).order == ()


candidate_lists = st.lists(
    st.builds(
        Candidate,
        model=st.sampled_from("abcdefgh"),
        p_correct=st.floats(0, 1),
        expected_cost_usd=st.none() | st.floats(0, 1),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda candidate: candidate.model,
)
policies = st.builds(
    Policy, name=st.sampled_from(POLICY_NAMES), usd_weight=st.floats(0, 1000), min_p_correct=st.floats(0, 1)
)


@given(candidate_lists, policies)
def test_everyone_is_ranked_or_excluded_and_propensities_sum_to_one(
    candidates: list[Candidate], policy: Policy
) -> None:
    ranking = rank(candidates, policy)
    assert sorted([*ranking.excluded, *(c.model for c in ranking.order)]) == sorted(c.model for c in candidates)
    assert sum(ranking.propensities) == 1.0
    assert len(ranking.propensities) == len(ranking.order)


@given(candidate_lists, policies, st.randoms())
def test_the_order_given_does_not_matter(candidates: list[Candidate], policy: Policy, random: Random) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert rank(shuffled, policy) == rank(candidates, policy)


@given(candidate_lists, policies, st.floats(0, 1))
def test_a_choice_that_gets_cheaper_stays_the_choice(candidates: list[Candidate], policy: Policy, share: float) -> None:
    chosen = rank(candidates, policy).order[0]
    if chosen.expected_cost_usd is None:
        return
    cheaper = Candidate(chosen.model, chosen.p_correct, chosen.expected_cost_usd * share)
    again = rank([cheaper if c.model == chosen.model else c for c in candidates], policy)
    assert again.order[0].model == chosen.model


@given(candidate_lists, st.floats(0, 1), st.floats(0, 1))
def test_raising_the_bar_never_picks_a_less_likely_model(candidates: list[Candidate], one: float, other: float) -> None:
    low, high = sorted((one, other))
    choices = [rank(candidates, Policy("cheapest", min_p_correct=bar)).order[0] for bar in (low, high)]
    assert choices[0].p_correct <= choices[1].p_correct


@given(candidate_lists, st.floats(0, 1000), st.floats(0, 1000))
def test_raising_lambda_never_picks_a_dearer_model(candidates: list[Candidate], one: float, other: float) -> None:
    if all(candidate.expected_cost_usd is None for candidate in candidates):
        return
    low, high = sorted((one, other))
    costs = [rank(candidates, Policy("balanced", usd_weight=w)).order[0].expected_cost_usd or 0.0 for w in (low, high)]
    assert costs[1] <= costs[0] + 1e-9


def test_who_stands_first_is_asked_whatever_it_costs() -> None:
    policy = Policy("cheapest", min_p_correct=0.0)
    ranking = rank([WEAK, STRONG, UNPRICED], policy, (UNPRICED.model, "of another pool"))
    alone = rank([WEAK, STRONG], policy)
    assert ranking.order == (UNPRICED, *alone.order)
    assert (ranking.excluded, ranking.note, ranking.propensities) == ({}, None, (1.0, 0.0, 0.0))
    assert rank([WEAK, STRONG], policy, (UNPRICED.model,)) == alone
