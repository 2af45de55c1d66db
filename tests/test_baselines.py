"""The baselines are what they are called."""

from dataclasses import replace

import numpy as np
import pytest

from tests.planted import planted_log
from tests.test_fit import vectors_of
from training.baselines import benchmark_mean, embedllm_mf, knn, model_mean
from training.dataset import Correctness
from training.evaluate import ALL_BASELINES, Method
from training.mf import MFSettings, biased_mf

TRUTH = planted_log(800, 5, seed=2)
DATA, VECTORS = Correctness.from_log(TRUTH.log), vectors_of(TRUTH)


def error(p: np.ndarray) -> float:
    return float(np.abs(p - TRUTH.p)[DATA.part("test")].mean())


def test_model_mean_is_the_accuracy_seen_for_every_question() -> None:
    p = model_mean(DATA, VECTORS)
    assert (p == p[0]).all()
    assert p[0] == pytest.approx(DATA.label[DATA.split != "test"].mean(axis=0), abs=0.01)


def test_benchmark_mean_is_told_the_benchmark_and_knn_finds_it() -> None:
    assert error(benchmark_mean(DATA, VECTORS)) < 0.05
    assert error(knn(DATA, VECTORS)) < 0.08
    assert error(model_mean(DATA, VECTORS)) > 0.2


def test_the_factorization_with_biases_finds_the_topics() -> None:
    assert error(biased_mf(DATA, VECTORS, settings=MFSettings(penalties=(3e-3,)))) < 0.06


def test_embedllm_procedure_learns_in_few_steps_when_they_are_larger() -> None:
    assert error(embedllm_mf(DATA, VECTORS, n_epochs=30, batch=256, learning_rate=3e-3)) < 0.15


def test_embedllm_procedure_learns_shares_where_repeats_disagree() -> None:
    """Half of a cell's repeats were right: one half is what to forecast, neither 0 nor 1."""
    vectors = np.zeros_like(VECTORS)
    for share in (0.5, 0.8):
        shares = replace(DATA, label=np.full_like(DATA.label, share))
        p = embedllm_mf(shares, vectors, n_epochs=20, batch=256, learning_rate=3e-3)
        assert p == pytest.approx(np.full(p.shape, share), abs=0.03)


METHODS = {**ALL_BASELINES, "biased_mf": biased_mf}


@pytest.mark.parametrize("name", METHODS)
def test_no_baseline_reads_test_labels(name: str) -> None:
    method: Method = METHODS[name]
    flipped = np.where((DATA.split == "test")[:, None], 1 - DATA.label, DATA.label)
    if name == "embedllm_mf":
        one, other = (embedllm_mf(d, VECTORS, n_epochs=2) for d in (DATA, replace(DATA, label=flipped)))
    else:
        one, other = (method(d, VECTORS, 0) for d in (DATA, replace(DATA, label=flipped)))
    assert np.array_equal(one, other)


def test_a_model_never_seen_gets_the_pools_rate() -> None:
    label = DATA.label.copy()
    label[DATA.split != "test", 2] = np.nan
    p = model_mean(replace(DATA, label=label), VECTORS)
    assert p[0, 2] == pytest.approx(np.nanmean(label[DATA.split != "test"]))
