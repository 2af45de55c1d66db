"""Near-duplicates are found, and templates are not mistaken for them."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.near_duplicates import SIGNATURE_LENGTH, TEMPLATE_SIZE, group_near_duplicates, sign

STORY = (
    "A farmer has seventeen sheep in the northern field and drives them home along the river every evening before "
    "sunset, counting each of them twice at the wooden gate so that none is ever left behind in the dark."
)


def test_case_spacing_and_unicode_forms_make_no_difference() -> None:
    groups = group_near_duplicates(["The ﬁrst   Question\nof all?", "the first question of all?", "Another one."])
    assert groups.tolist() == [0, 0, 2]


def test_one_changed_word_in_a_long_text_is_a_near_duplicate() -> None:
    assert group_near_duplicates([STORY, STORY.replace("sunset", "nightfall")]).tolist() == [0, 0]


def test_a_chain_of_near_duplicates_is_one_group() -> None:
    second = STORY.replace("sunset", "nightfall")
    third = second.replace("seventeen", "eighteen")
    assert set(group_near_duplicates([STORY, second, third]).tolist()) == {0}


def test_short_prompts_that_differ_in_a_number_are_different() -> None:
    prompts = [f"What is {a} plus {b}?" for a in range(20) for b in range(20)]
    assert len(set(group_near_duplicates(prompts).tolist())) == 400


def test_short_texts_are_compared_whole() -> None:
    assert group_near_duplicates(["Hello", "hello ", "Hello there", ""]).tolist() == [0, 0, 2, 3]


def test_one_template_with_many_fillings_does_not_collapse() -> None:
    preamble = "You are a careful assistant. " * 3 + STORY
    filled = [f"{preamble} What is {number} times {number + 3}?" for number in range(40)]
    groups = group_near_duplicates([*filled, filled[7].upper()])
    assert len(set(groups.tolist())) == 40
    assert groups[40] == 7


def test_a_long_shared_prompt_does_not_hide_different_questions() -> None:
    system = " ".join(f"rule {number} says that case {number} is closed;" for number in range(300))
    groups = group_near_duplicates([f"{system} Now: {number}?" for number in range(TEMPLATE_SIZE + 1)])
    assert len(set(groups.tolist())) == TEMPLATE_SIZE + 1


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from([STORY, STORY.lower(), STORY + " Why?", "short", "Short", "other"]), max_size=8),
    st.randoms(),
)
def test_groups_do_not_depend_on_the_order_of_prompts(prompts: list[str], random: object) -> None:
    order = list(range(len(prompts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight = group_near_duplicates(prompts)
    shuffled = group_near_duplicates([prompts[at] for at in order])
    for i in range(len(order)):
        for j in range(len(order)):
            assert (shuffled[i] == shuffled[j]) == (straight[order[i]] == straight[order[j]])


def test_signatures_are_the_same_in_every_process_and_release() -> None:
    signature = sign(["What is the capital of France?"])
    assert signature.shape == (1, SIGNATURE_LENGTH)
    assert signature.dtype == np.uint32
    assert signature[0, :3].tolist() == [29022044, 2866672848, 989462698]


def test_ten_thousand_prompts_take_seconds() -> None:
    words = np.random.default_rng(0).integers(0, 5000, size=(10_000, 80))
    prompts = [" ".join(f"w{word}" for word in row) for row in words]
    started = time.perf_counter()
    groups = group_near_duplicates(prompts)
    assert len(set(groups.tolist())) == 10_000
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize(("name", "at_least"), [("zeroeval", 30), ("mmlu_pro", 150)])
def test_real_sets_hold_pairs_and_no_big_groups(shared_data: Path, name: str, at_least: int) -> None:
    questions = pd.read_csv(shared_data / name / "questions.csv")
    groups = pd.Series(group_near_duplicates(questions["prompt"].tolist()))
    sizes = groups.value_counts()
    assert (sizes > 1).sum() >= at_least
    assert sizes.max() <= TEMPLATE_SIZE
    separated = questions["split"].groupby(groups.to_numpy()).nunique().gt(1).sum()
    assert separated <= 5  # shared passages under other questions; no exact duplicate is among them
    exact = questions["split"].groupby(questions["prompt"].str.lower().str.split().str.join(" ")).nunique()
    assert exact.max() == 1
