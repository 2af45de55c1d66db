"""What each part of the forecaster brings: methods beside each other, cross-validated on a long-format folder.

    python -m tests.benchmarks.bench_forecasts PATH [--embedllm]

Folds are dealt from the train and val questions by near-duplicate group; the test questions are not read, so this may
be run as often as a choice has to be made. In each fold an eighth of the other groups is the val split that methods
choose by. Differences to the default are paired, with intervals by bootstrap over the groups.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.importers.long import read_folder
from router.encoder import DEFAULT_ENCODER
from router.encoder.base import Vectors
from router.encoder.registry import fit_encoder
from router.surface import describe
from training import baselines
from training.alternation import FitSettings
from training.dataset import Correctness
from training.evaluate import Method
from training.fit import fit_scorer
from training.metrics import Cells, auc, bootstrap_weights, ece, interval, nll_by_cell
from training.mf import biased_mf

N_FOLDS = 5
DEFAULT = "embedrouter"


def embedrouter(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    return fit_scorer(data, vectors, seed).scorer.p_correct(vectors, describe(data.prompts))


def words_only(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    """The default, blind to what prompts look like."""
    return embedrouter(replace(data, prompts=("",) * data.n_questions), vectors, seed)


def surface_only(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    """The default, blind to what prompts say."""
    return embedrouter(data, np.zeros_like(vectors), seed)


def process_only(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    """The default without its forest."""
    fitted = fit_scorer(data, vectors, seed, FitSettings(forest_shares=(0.0,)))
    return fitted.scorer.p_correct(vectors, describe(data.prompts))


def forest_only(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    """The default without its process, which still teaches the forest."""
    fitted = fit_scorer(data, vectors, seed, FitSettings(forest_shares=(1.0,)))
    return fitted.scorer.p_correct(vectors, describe(data.prompts))


METHODS: Mapping[str, Method] = {
    "model_mean": baselines.model_mean,
    "benchmark_mean": baselines.benchmark_mean,
    "knn": baselines.knn,
    "biased_mf": biased_mf,
    "surface_only": surface_only,
    "words_only": words_only,
    "process_only": process_only,
    "forest_only": forest_only,
    DEFAULT: embedrouter,
}


def cross_validate(data: Correctness, methods: Mapping[str, Method], seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Forecast every question by each method without its fold's labels; grids of shape (n_questions, n_models)."""
    distinct, group = np.unique(data.groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    fold, eighth = rng.permutation(len(distinct))[group] % N_FOLDS, rng.permutation(len(distinct))[group] % 8
    forecasts = {name: np.full(data.label.shape, np.nan) for name in methods}
    for k in range(N_FOLDS):
        held_out = fold == k
        split = np.where(held_out, "test", np.where(eighth == 0, "val", "train"))
        label = np.where(held_out[:, None], np.float32(np.nan), data.label)
        visible = replace(data, label=label, split=split)
        encoder = fit_encoder(DEFAULT_ENCODER, [data.prompts[row] for row in visible.part("train")])
        vectors = encoder.encode(data.prompts)
        for name, method in methods.items():
            forecasts[name][held_out] = method(visible, vectors, seed)[held_out]
            print(f"fold {k + 1} of {N_FOLDS}: {name}", flush=True)
    return forecasts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--embedllm", action="store_true", help="EmbedLLM's procedure too, for some minutes more")
    arguments = parser.parse_args()
    data = Correctness.from_log(read_folder(arguments.path))
    data = data.rows(np.flatnonzero(data.split != "test"))
    methods = dict(METHODS) | ({"embedllm_mf": baselines.embedllm_mf} if arguments.embedllm else {})
    forecasts = cross_validate(data, methods)
    weights = bootstrap_weights(data.groups, 1000, seed=0)
    cells = {name: Cells.from_grid(data.label, p) for name, p in forecasts.items()}
    samples = {name: c.mean_by_weights(nll_by_cell(c), weights) for name, c in cells.items()}
    print(f"\n{arguments.path}: {data.n_questions:,} questions, {data.n_models} models, {N_FOLDS}-fold")
    print(f"{'':<16}{'NLL':>8}{'AUC':>8}{'ECE':>8}   NLL less the default's, 95%")
    for name, c in cells.items():
        low, high = interval(samples[name] - samples[DEFAULT])
        area = float(auc(c, np.ones(data.n_questions)))
        print(f"{name:<16}{nll_by_cell(c).mean():>8.4f}{area:>8.4f}{ece(c):>8.4f}   {low:+.4f} to {high:+.4f}")


if __name__ == "__main__":
    main()
