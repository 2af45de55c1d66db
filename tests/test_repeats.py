"""What counts as a repeated observation, what only looks like one, and what repeats are worth to a fit."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine

from data.importers.long import import_folder, read_folder
from data.queries import RepeatRate, repeat_rate
from tests.logs import write_long
from tests.planted import planted_log
from tests.test_fit import QUICK
from training.dataset import Correctness
from training.fit import fit_scorer
from training.repeats import agreement, weigh, weigh_alone

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


Floats = NDArray[np.float64]
N_REPEATS = 9


@dataclass(frozen=True)
class Drawn:
    """Mean labels of cells observed again and again, how often, and the truth, each (n_questions, n_models)."""

    label: NDArray[np.float32]
    n_observations: NDArray[np.float32]
    p: Floats

    @classmethod
    def of(cls, n_questions: int, own: float, seed: int = 0, n_repeats: int = N_REPEATS) -> "Drawn":
        """Questions differ in difficulty, and cells beyond that by a normal logit of standard deviation `own`."""
        rng = np.random.default_rng(seed)
        logit = rng.normal(0, 1.5, (n_questions, 1)) + np.linspace(-1, 1, 8) + rng.normal(0, own, (n_questions, 8))
        p = 1 / (1 + np.exp(-logit))
        n = np.full(p.shape, n_repeats, dtype=np.float32)
        return cls((rng.binomial(n_repeats, p) / n_repeats).astype(np.float32), n, p)


def test_new_draws_count_each_and_echoes_count_once() -> None:
    drawn = Drawn.of(2000, own=0.0)
    assert agreement(drawn.label, drawn.n_observations) < 0.05
    assert weigh(drawn.label, drawn.n_observations).min() > 6.5
    echoes = (drawn.label > 0.5).astype(np.float32)
    assert agreement(echoes, drawn.n_observations) > 0.95
    assert weigh(echoes, drawn.n_observations).max() < 1.1
    between = weigh(*_labels(Drawn.of(2000, own=1.5)))
    assert 1.5 < between.mean() < 5


def _labels(drawn: Drawn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return drawn.label, drawn.n_observations


@pytest.mark.parametrize("repeated", ["easy", "hard", "one model's"])
def test_repeats_on_some_questions_are_judged_by_those(repeated: str) -> None:
    rng = np.random.default_rng(0)
    level = np.where(np.arange(1500) < 1200, 2.0, -1.0)[:, None]
    p = 1 / (1 + np.exp(-(level + rng.normal(0, 1, (1500, 1)) + rng.normal(0, 0.5, 12))))
    n = np.ones(p.shape, dtype=np.float32)
    if repeated == "one model's":
        n[1200:, 0] = 5
    else:
        n[level[:, 0] > 0 if repeated == "easy" else level[:, 0] < 0] = 5
    draws = (rng.binomial(n.astype(np.int64), p) / n).astype(np.float32)
    assert agreement(draws, n) < 0.15
    assert agreement((rng.random(p.shape) < p).astype(np.float32), n) > 0.85


def test_one_models_repeats_weigh_as_it_agrees_with_itself() -> None:
    drawn = Drawn.of(400, own=0.0)
    others = (np.random.default_rng(3).random((400, 7)) < drawn.p[:, 1:]).astype(np.float32)
    others[::3, 2] = np.nan
    n = drawn.n_observations[:, 0].astype(np.float64)
    draws = drawn.label[:, 0].astype(np.float64)
    assert weigh_alone(draws, n, others).min() > 3.5
    assert weigh_alone((draws > 0.5).astype(np.float64), n, others).max() < 1.2
    assert weigh_alone(draws, np.ones(400), others).tolist() == [1.0] * 400


def test_a_few_repeats_are_half_believed_and_single_outcomes_weigh_one() -> None:
    drawn = Drawn.of(500, own=0.0, n_repeats=1)
    label, n = drawn.label.copy(), drawn.n_observations.copy()
    label[:2, 0], n[:2, 0] = 0.5, 2
    label[5, 5], n[5, 5] = np.nan, 0
    assert agreement(label, n) == pytest.approx(0.5, abs=0.1)
    weight = weigh(label, n)
    assert weight[5, 5] == 0
    assert weight[:2, 0] == pytest.approx(2 / 1.5, abs=0.1)
    assert weight.sum() == pytest.approx(label.size - 3 + weight[:2, 0].sum())


def test_repeats_bring_the_questions_they_are_of_nearer_to_the_truth() -> None:
    """Prompts tell nothing, a quarter of the cells is observed, nine times each."""
    drawn = Drawn.of(600, own=0.0, seed=1)
    seen = np.random.default_rng(2).random(drawn.label.shape) < 0.25
    blank = Correctness.from_log(planted_log(600, 8).log)
    label = np.where(seen, drawn.label, np.float32(np.nan))
    counts = np.where(seen, drawn.n_observations, np.float32(0))
    data = replace(blank, label=label, prompts=("the same",) * 600)
    vectors = np.zeros((600, 2), dtype=np.float32)
    counted, once = (fit_scorer(replace(data, n_observations=n), vectors, settings=QUICK) for n in (counts, None))
    error = {}
    for name, fitted in (("counted", counted), ("once", once)):
        u, bias = fitted.scorer.model_embedding, fitted.scorer.model_bias
        p = 1 / (1 + np.exp(-(fitted.questions.mean @ u.T + bias)))
        error[name] = np.abs(p - drawn.p[fitted.rows]).mean()
    assert error["counted"] < 0.8 * error["once"]
    trace = [np.trace(fitted.questions.covariance, axis1=1, axis2=2).mean() for fitted in (counted, once)]
    assert trace[0] < trace[1]


def test_a_log_brings_its_counts(tmp_path: Path) -> None:
    outcomes = [("q0", "m", 1), ("q0", "m", 0), ("q0", "m", 1), ("q1", "m", 1)]
    data = Correctness.from_log(read_folder(write_long(tmp_path / "log", outcomes, questions=QUESTIONS, models=MODELS)))
    assert data.n_observations is not None
    assert data.n_observations.tolist() == [[3.0], [1.0]]
    assert data.label[:, 0] == pytest.approx([2 / 3, 1])
    part = data.rows(np.array([1]))
    assert part.n_observations is not None
    assert part.n_observations.tolist() == [[1.0]]
    six = replace(data, n_observations=2 * data.n_observations)
    assert six.fingerprint() != data.fingerprint()
    with pytest.raises(ValueError, match="n_observations of shape"):
        replace(data, n_observations=np.ones((1, 1), dtype=np.float32))


def test_some_of_the_models_keep_their_counts(tmp_path: Path) -> None:
    outcomes = [("q0", "m", 1), ("q0", "m", 0), ("q0", "n", 1), ("q1", "n", 1)]
    models = [*MODELS, ("n", "", "")]
    data = Correctness.from_log(read_folder(write_long(tmp_path / "log", outcomes, questions=QUESTIONS, models=models)))
    part = data.columns(np.array([1, 0]))
    assert part.model_names == ("n", "m")
    assert part.n_observations is not None
    assert part.n_observations.tolist() == [[1.0, 2.0], [1.0, 0.0]]
    assert part.label[0].tolist() == [1.0, 0.5]
