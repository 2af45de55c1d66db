"""Rules that rewrite a body for one model's upstream."""

import pytest
from pydantic import ValidationError

from router.parameters import AS_IT_COMES, ParameterRules
from router.settings import ParametersSection

BODY: dict[str, object] = {"model": "m", "max_tokens": 5, "temperature": 0.5}


def test_rename_drop_and_require_hold_in_this_order_and_the_request_stays_as_it_was() -> None:
    rules = ParameterRules(
        rename=(("max_tokens", "max_completion_tokens"),),
        drop=frozenset({"temperature"}),
        require=(("reasoning_effort", "low"), ("max_completion_tokens", 99)),
    )
    assert rules.apply(BODY) == {"model": "m", "max_completion_tokens": 5, "reasoning_effort": "low"}
    assert BODY == {"model": "m", "max_tokens": 5, "temperature": 0.5}


def test_where_both_names_stand_in_the_body_the_new_ones_value_is_kept() -> None:
    rules = ParameterRules(rename=(("max_tokens", "max_completion_tokens"),))
    assert rules.apply({"max_tokens": 5, "max_completion_tokens": 7}) == {"max_completion_tokens": 7}


def test_without_rules_nothing_is_copied() -> None:
    assert ParametersSection().rules() is AS_IT_COMES


@pytest.mark.parametrize("section", [{"drop": ["messages"]}, {"rename": {"prompt": "x"}}, {"require": {"model": "x"}}])
def test_what_a_request_is_made_of_has_no_rules(section: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="is what a request is made of"):
        ParametersSection.model_validate(section)
