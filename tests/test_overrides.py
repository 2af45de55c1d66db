"""What one request says of its own routing."""

from typing import Any

import pytest

from router.errors import InvalidRequestError
from router.overrides import HEADER_OF, Overrides, read_overrides
from router.policy import Policy

DEFAULT = Policy("quality", usd_weight=10.0, min_p_correct=0.7)


def test_without_a_word_the_configuration_holds() -> None:
    assert read_overrides(None, {}, DEFAULT) == Overrides(DEFAULT)


def test_every_key_is_also_a_header_and_the_body_wins() -> None:
    headers = {
        "x-embedrouter-policy": "cheapest",
        "x-embedrouter-min-p-correct": "0.5",
        "x-embedrouter-candidates": "org/a, b%2Cc ,",
        "x-embedrouter-max-cost-usd": "0.01",
        "x-embedrouter-max-latency-s": "3",
    }
    policy = Policy("cheapest", usd_weight=10.0, min_p_correct=0.5)
    assert read_overrides(None, headers, DEFAULT) == Overrides(policy, ("org/a", "b,c"), 0.01, 3.0)
    assert read_overrides({"max_cost_usd": 2}, headers, DEFAULT).max_cost_usd == 2.0
    assert set(headers) < set(HEADER_OF.values())


@pytest.mark.parametrize(
    ("extension", "policy"),
    [
        ({"min_p_correct": 0.9}, Policy("cheapest", min_p_correct=0.9)),
        ({"lambda": 5}, Policy("balanced", usd_weight=5.0)),
        ({"usd_per_correct": 0.25}, Policy("balanced", usd_weight=4.0)),
        ({"policy": "quality", "min_p_correct": 0.9}, Policy("quality", min_p_correct=0.9)),
        ({"max_error": 0.05}, Policy("quality", max_error=0.05)),
    ],
)
def test_a_number_alone_says_which_policy_is_meant(extension: dict[str, Any], policy: Policy) -> None:
    assert read_overrides(extension, {}, DEFAULT).policy == policy


@pytest.mark.parametrize(
    ("extension", "says"),
    [
        ({"lambda": 1, "usd_per_correct": 1}, "say the same thing"),
        ({"min_p_correct": 0.5, "lambda": 1}, "say which, in `policy`"),
        ({"max_error": 0.1, "min_p_correct": 0.5}, "say which, in `policy`"),
        ({"max_error": 0.1, "policy": "cheapest"}, "bounds the errors of policy quality, not of cheapest"),
        ({"max_error": 5}, "between 0 and 1"),
        ({"usd_per_correct": 0}, "of 1e-12 or more"),
        ({"max_cost_usd": float("nan")}, "must be a number of 0 or more"),
        ({"max_latency_s": "soon"}, "must be a number"),
        ({"candidates": []}, "must be a list of model names"),
        ({"max_cost": 1}, "did you mean `max_cost_usd`?"),
    ],
)
def test_a_mistake_is_named(extension: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        read_overrides(extension, {}, DEFAULT)
