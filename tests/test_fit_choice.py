"""What a fit chooses and calibrates is chosen on forecasts of the very kind that ships, and of labels unseen."""

from dataclasses import replace

import numpy as np

from router.surface import describe
from tests.planted import planted_log
from tests.test_fit import vectors_of
from training import fit
from training.alternation import FitSettings, Log
from training.chunks import chunk_threads
from training.dataset import Correctness
from training.fit import fit_scorer, refit
from training.folds import deal_folds

TRUTH = planted_log(400, 8)
DATA = Correctness.from_log(TRUTH.log)
VECTORS = vectors_of(TRUTH)[DATA.keys]
SETTINGS = FitSettings(n_landmarks=80, n_rounds=6, noises=(64.0, 2.0, 0.5))


def log() -> Log:
    return Log.of(DATA, VECTORS, np.arange(DATA.n_questions))


def test_all_are_fitted_last_just_as_each_fold_was() -> None:
    fitted = fit_scorer(DATA, VECTORS, settings=SETTINGS)
    again = refit(DATA, VECTORS, fitted, settings=SETTINGS)
    rows = fitted.rows
    with chunk_threads():
        step = fit._fit_once(log().rows(np.isin(np.arange(DATA.n_questions), rows)), fitted.noise, 0, SETTINGS)
    for one in (fitted, again):
        np.testing.assert_array_equal(one.scorer.weights, step.scorer.weights)
        np.testing.assert_array_equal(one.scorer.model_embedding, step.scorer.model_embedding)


def test_a_part_of_a_log_is_learned_as_the_whole_is() -> None:
    settings = FitSettings(n_coarse=100)
    assert settings.of_size(200).n_coarse == 200  # nothing of it is learned first
    assert settings.of_size(201).n_coarse == 100  # and so it is of two thirds of it


def test_a_fold_is_calibrated_by_the_labels_of_the_others_alone() -> None:
    folds = deal_folds(np.arange(DATA.n_questions), 3, 0)
    logits = np.random.default_rng(0).normal(size=DATA.label.shape).astype(np.float32)
    turned = np.where((folds == 0)[:, None], 1 - DATA.label, DATA.label)
    mixing = fit._Mixing(0.3, True, logits, {})
    honest, other = (fit._Closing.by_other_folds(mixing, label, folds) for label in (DATA.label, turned))
    assert honest[0].platt == other[0].platt
    np.testing.assert_array_equal(honest[0].own, other[0].own)
    assert honest[1].platt != other[1].platt


def test_one_model_has_trees_too() -> None:
    alone = replace(
        DATA,
        label=DATA.label[:, :1],
        output_tokens=DATA.output_tokens[:, :1],
        model_names=DATA.model_names[:1],
        prices=DATA.prices[:1],
    )
    fitted = fit_scorer(alone, VECTORS, settings=replace(SETTINGS, forest_shares=(0.3,)))
    p = fitted.scorer.p_correct(VECTORS, describe(DATA.prompts))
    assert p.shape == (DATA.n_questions, 1)
    assert np.isfinite(p).all()


def test_without_trees_the_order_of_questions_moves_a_forecast_by_rounding_alone() -> None:
    order = np.random.default_rng(1).permutation(DATA.n_questions)
    surface = describe(DATA.prompts)
    settings = replace(SETTINGS, forest_shares=(0.0,), n_landmarks=DATA.n_questions)
    one, other = (
        fit_scorer(data, vectors, settings=settings).scorer.p_correct(VECTORS, surface)
        for data, vectors in ((DATA, VECTORS), (DATA.rows(order), VECTORS[order]))
    )
    assert np.abs(one - other).max() < 5e-4
