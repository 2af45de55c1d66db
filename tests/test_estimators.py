"""One behaviour suite over every estimator, on logs whose truth is planted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from router.artifact import Manifest, read_artifact, write_artifact
from router.encoder.base import Vectors
from router.encoder.registry import fit_encoder
from router.surface import describe
from tests.planted import planted_log
from tests.test_fit import QUICK, vectors_of
from training.baselines import Tuning, embedllm_mf, embedllm_mf_tuned, tune_embedllm
from training.dataset import Correctness
from training.estimators import ESTIMATORS
from training.evaluate import DEFAULT, Method, hide_test
from training.fit import fit_scorer
from training.mf import MFSettings, biased_mf

Floats = NDArray[np.float64]

TRUTH = planted_log(600, 5, seed=3)
VECTORS = vectors_of(TRUTH)
DATA = hide_test(Correctness.from_log(TRUTH.log))
TEST = DATA.part("test")


@dataclass(frozen=True)
class Expected:
    """What can be asked of one estimator on the planted log.

    error: the largest mean absolute error of P(correct) on test, with all cells and with half of them; reorders:
    whether the order of questions and of models leaves its forecasts as they are, and to what precision: the default's
    on average, all others' in every cell.
    """

    error: float
    error_of_half: float
    reorders_questions: float | None = None
    reorders_models: float | None = None


# of a planted log of 600 questions and four topics a model's mean is .3 off
EXPECTED = {
    DEFAULT: Expected(0.08, 0.10, reorders_questions=1e-2),  # of two splits as good, a tree takes one by a hair
    "model_mean": Expected(0.50, 0.50, 1e-9, 1e-9),
    "benchmark_mean": Expected(0.06, 0.08, 1e-9, 1e-9),
    "knn": Expected(0.08, 0.10, 1e-9, 1e-9),
    "embedllm_mf": Expected(0.15, 0.20),
    "embedllm_mf_tuned": Expected(0.15, 0.20),
    "biased_mf": Expected(0.08, 0.10, reorders_questions=1e-3),
}


def default_at_test_size(data: Correctness, vectors: Vectors, seed: int = 0) -> Floats:
    return fit_scorer(data, vectors, seed, QUICK).scorer.p_correct(vectors, describe(data.prompts))


# the same procedures with less to search and larger steps: the planted log is a hundredth of a real one
AT_TEST_SIZE: dict[str, Method] = {
    DEFAULT: default_at_test_size,
    "embedllm_mf": partial(embedllm_mf, n_epochs=20, batch=256, learning_rate=3e-3),
    "embedllm_mf_tuned": partial(embedllm_mf_tuned, tuning=Tuning((3e-3,), max_epochs=20, batch=256)),
    "biased_mf": partial(biased_mf, settings=MFSettings(penalties=(3e-3,), max_steps=100)),
}

Forecast = Callable[[Correctness, Vectors], Floats]
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


def estimator(name: str) -> Method:
    return AT_TEST_SIZE.get(name, ESTIMATORS[name])


@pytest.fixture(scope="module")
def forecasts() -> dict[str, Floats]:
    """What each estimator forecasts of the whole planted log, made once."""
    return {name: estimator(name)(DATA, VECTORS, 0) for name in ESTIMATORS}


@every_estimator
def test_a_planted_truth_is_recovered(name: str, forecasts: dict[str, Floats]) -> None:
    p = forecasts[name]
    assert p.shape == DATA.label.shape
    assert ((p >= 0) & (p <= 1)).all()
    assert np.abs(p - TRUTH.p)[TEST].mean() < EXPECTED[name].error


@every_estimator
def test_one_question_is_forecast_as_it_is_among_others(name: str, forecasts: dict[str, Floats]) -> None:
    alone = np.append(np.flatnonzero(DATA.split != "test"), TEST[7])
    p = estimator(name)(DATA.rows(alone), VECTORS[alone], 0)
    assert p[-1] == pytest.approx(forecasts[name][TEST[7]], abs=1e-5)


@every_estimator
def test_missing_is_not_wrong(name: str) -> None:
    """Hide half of the outcomes, and most of one model's: the forecasts stay where the truth is."""
    rng = np.random.default_rng(0)
    hidden = rng.random(DATA.label.shape) < np.array([0.5, 0.5, 0.5, 0.5, 0.8])
    half = replace(DATA, label=np.where(hidden, np.float32(np.nan), DATA.label))
    p = estimator(name)(half, VECTORS, 0)[TEST]
    truth = TRUTH.p[TEST]
    assert np.abs(p - truth).mean() < EXPECTED[name].error_of_half
    assert p.mean(axis=0) == pytest.approx(truth.mean(axis=0), abs=0.12)


@every_estimator
def test_the_same_seed_gives_the_same_forecast(name: str, forecasts: dict[str, Floats]) -> None:
    assert np.array_equal(estimator(name)(DATA, VECTORS, 0), forecasts[name])


@every_estimator
def test_test_labels_are_never_read(name: str, forecasts: dict[str, Floats]) -> None:
    told = np.where((DATA.split == "test")[:, None], np.float32(1), DATA.label)
    assert np.array_equal(estimator(name)(replace(DATA, label=told), VECTORS, 0), forecasts[name])


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if EXPECTED[name].reorders_questions])
def test_the_order_of_questions_does_not_matter(name: str, forecasts: dict[str, Floats]) -> None:
    order = np.random.default_rng(1).permutation(DATA.n_questions)
    p = estimator(name)(DATA.rows(order), VECTORS[order], 0)
    differences = np.abs(p - forecasts[name][order])
    assert (differences.mean() if name == DEFAULT else differences.max()) < (EXPECTED[name].reorders_questions or 0)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if EXPECTED[name].reorders_models])
def test_the_order_of_models_does_not_matter(name: str, forecasts: dict[str, Floats]) -> None:
    order = np.array([3, 0, 4, 2, 1])
    data = DATA.columns(order)
    p = estimator(name)(data, VECTORS, 0)
    assert np.abs(p - forecasts[name][:, order]).max() < (EXPECTED[name].reorders_models or 0)


def test_a_saved_default_forecasts_to_the_bit_what_the_kept_one_does(tmp_path: Path) -> None:
    encoder = fit_encoder("lsa", [DATA.prompts[row] for row in DATA.part("train")])
    vectors = encoder.encode(DATA.prompts)
    scorer = fit_scorer(DATA, vectors, 0, QUICK).scorer
    manifest = Manifest(
        model_names=DATA.model_names,
        expected_output_tokens=(None,) * DATA.n_models,
        encoder="lsa",
        encoder_fingerprint=encoder.fingerprint,
        data_fingerprint=DATA.fingerprint(),
        outcome_watermark=0,
        seed=0,
        metrics={},
    )
    written = write_artifact(tmp_path, manifest, scorer, encoder)
    read = read_artifact(written.folder)
    prompts = [DATA.prompts[row] for row in TEST]
    assert np.array_equal(read.p_correct(prompts), scorer.p_correct(vectors[TEST], describe(prompts)))


def test_tuning_chooses_the_rate_and_the_epoch_that_are_best_on_val() -> None:
    """A rate too small to learn anything in a few epochs loses; of one that overfits, an early epoch is taken."""
    tuned = tune_embedllm(DATA, VECTORS, tuning=Tuning((1e-6, 3e-3, 3e-2), max_epochs=40, patience=3, batch=256))
    assert tuned.learning_rate > 1e-6
    assert 1 <= tuned.n_epochs < 40
    assert tuned.n_epochs + 3 <= tuned.n_epochs_run < 120
    alone = tune_embedllm(DATA, VECTORS, tuning=Tuning((1e-6,), max_epochs=3, patience=3, batch=256))
    assert tuned.nll < alone.nll - 0.05


def test_tuning_without_val_outcomes_is_refused() -> None:
    label = np.where((DATA.split == "val")[:, None], np.float32(np.nan), DATA.label)
    with pytest.raises(ValueError, match="no outcome on any val question"):
        tune_embedllm(replace(DATA, label=label), VECTORS)
