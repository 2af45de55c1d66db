"""What counts as a repeated observation, and what only looks like one."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from data.importers.long import import_folder
from data.queries import RepeatRate, repeat_rate
from tests.logs import write_long

N = 120
QUESTIONS = [(f"q{i}", f"question {i} about {i * 7919 % 1000}", "sums", "train") for i in range(N)]
MODELS = [("m", "", "")]


def run(folder: Path, wrong: set[int], *, more: int = 0) -> Path:
    """A log of one model that answered some questions wrongly, the first `more` of them twice."""
    outcomes = [(f"q{i}", "m", int(i not in wrong)) for i in [*range(N), *range(more)]]
    return write_long(folder, outcomes, questions=QUESTIONS, models=MODELS)


def test_an_edited_log_in_another_folder_repeats_nothing(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, run(tmp_path / "first", {1, 2, 30}, more=10))
    before = repeat_rate(engine)
    assert before == RepeatRate(10, 0.0)
    assert import_folder(engine, run(tmp_path / "edited", {1, 2}, more=10)).source == "long:edited"
    assert repeat_rate(engine) == before


def test_a_correction_within_a_source_is_no_repeat(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, run(tmp_path / "log", set()))
    corrected = import_folder(engine, run(tmp_path / "log", set(range(30))))
    assert (corrected.n_new, corrected.n_conflicting) == (30, 30)
    assert repeat_rate(engine) == RepeatRate(0, 0.0)


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_another_run_of_the_same_questions_counts(engine: Engine, tmp_path: Path, first: str, second: str) -> None:
    import_folder(engine, run(tmp_path / first, set()))
    import_folder(engine, run(tmp_path / second, {5, 6, 7, 8, 9, 10}))
    assert repeat_rate(engine) == RepeatRate(N, 6.0)
    import_folder(engine, run(tmp_path / "copy", {5, 6, 7, 8, 9, 10}))  # of the second, not of the first
    assert repeat_rate(engine) == RepeatRate(N, 6.0)


def test_few_shared_pairs_are_repeats_even_where_they_agree(engine: Engine, tmp_path: Path) -> None:
    import_folder(engine, run(tmp_path / "first", set()))
    few = write_long(tmp_path / "few", [(f"q{i}", "m", 1) for i in range(20)], questions=QUESTIONS, models=MODELS)
    import_folder(engine, few)
    assert repeat_rate(engine) == RepeatRate(20, 0.0)
