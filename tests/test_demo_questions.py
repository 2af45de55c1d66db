"""The demo's generated questions and their grading."""

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.demo.generate import FAMILIES, generate
from data.demo.question import final_answer, is_correct
from data.demo.roman import numeral
from data.near_duplicates import group_near_duplicates
from router.simulated.skills import read


def test_the_same_seed_gives_the_same_questions_and_another_seed_gives_others() -> None:
    questions = generate(300, seed=5)
    assert questions == generate(300, seed=5)
    others = {question.prompt for question in generate(300, seed=6)}
    assert sum(question.prompt in others for question in questions) < 10


def test_families_take_turns_and_prompts_and_ids_are_distinct() -> None:
    questions = generate(500, seed=0)
    assert Counter(question.family for question in questions) == dict.fromkeys(FAMILIES, 50)
    assert len({question.prompt for question in questions}) == 500
    assert len({question.question_id for question in questions}) == 500


@pytest.mark.parametrize("family", FAMILIES)
def test_an_independent_solver_agrees_with_every_gold_answer(family: str) -> None:
    """The simulator's parsers and solvers share no code with the generators."""
    for question in [question for question in generate(3000, seed=11) if question.family == family]:
        reading = read(question.prompt)
        assert reading is not None, question.prompt
        assert reading.family == family, question.prompt
        assert is_correct(question.gold, f"Answer: {reading.right.answer}"), (question, reading)


def test_near_duplicates_do_not_swallow_a_family() -> None:
    questions = generate(2000, seed=0)
    groups = group_near_duplicates([question.prompt for question in questions])
    groups_of = {family: set[int]() for family in FAMILIES}
    for question, group in zip(questions, groups, strict=True):
        groups_of[question.family].add(group)
    assert min(map(len, groups_of.values())) > 190  # of 200 questions in each family


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("4832", "I carried.\nAnswer: 4,832"),
        ("12.50", "the answer is: $12.5"),
        ("12.07", "Answer: 12.0704 litres"),
        ("-362", "Answer: -362."),
        ("Wednesday", "ANSWER: wednesday."),
        ("arrow, hammer", "Answer: Arrow hammer"),
        ("2019-03-01", "It is a Friday.\nAnswer: 2019-03-01"),
        ("MCM", "Answer: MCM"),
        ("True", "Answer: 3\nNo, wait.\nAnswer: True"),
        ("17", "First I subtract.\n17"),
    ],
)
def test_a_right_answer_counts_however_it_is_written(gold: str, reply: str) -> None:
    assert is_correct(gold, reply)


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("4832", "Answer: 4833"),
        ("17", "Answer: 17.4"),
        ("12.07", "Answer: 12.08"),
        ("17", "Answer: 17 or 18"),
        ("17", "17 is what I would say, if asked"[3:]),
        ("yes", "Answer: no"),
        ("Monday", "Answer: Monday or Tuesday"),
        ("2019-03-01", "Answer: 2019-03-02"),
        ("IV", "Answer: IIII"),
        ("True", "Answer: 3\nAnswer: False\n"),
        ("17", ""),
        ("17", "Answer: 1e400"),
    ],
)
def test_a_wrong_or_undecided_answer_does_not_count(gold: str, reply: str) -> None:
    assert not is_correct(gold, reply)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=2))
def test_a_number_is_graded_at_the_golds_own_places(value: Decimal) -> None:
    gold = f"{value:.2f}"
    assert is_correct(gold, f"Answer: {value:,.2f}")
    assert not is_correct(gold, f"Answer: {value + Decimal('0.01'):.2f}")


def test_the_final_answer_is_the_last_marked_one_or_the_last_line() -> None:
    assert final_answer("Answer: 3\nAnswer: 4") == "4"
    assert final_answer("thinking\n  42  \n\n") == "42"
    assert final_answer("") == ""


def test_roman_numerals_subtract() -> None:
    assert [numeral(n) for n in (4, 9, 14, 40, 90, 400, 1994, 3999)] == [
        "IV", "IX", "XIV", "XL", "XC", "CD", "MCMXCIV", "MMMCMXCIX",
    ]  # fmt: skip
