"""What each part of the forecaster brings: methods beside each other, cross-validated on a long-format folder.

    python -m tests.benchmarks.bench_forecasts PATH [--embedllm] [--output FILE]

Folds are dealt from the train and val questions by near-duplicate group; the test questions are not read, so this may
be run as often as a choice has to be made. In each fold an eighth of the other groups is the val split that methods
choose by. Differences to the default are paired, with intervals by bootstrap over the groups; `embedrouter report
--ablation FILE` shows them.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

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
N_RESAMPLES = 1000
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


def lsa_only(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    """The default without the bundled encoder, whatever the vectors given."""
    encoder = fit_encoder("lsa", [data.prompts[row] for row in data.learnable("train")])
    return embedrouter(data, encoder.encode(data.prompts), seed)


METHODS: Mapping[str, Method] = {
    "model_mean": baselines.model_mean,
    "benchmark_mean": baselines.benchmark_mean,
    "knn": baselines.knn,
    "biased_mf": biased_mf,
    "surface_only": surface_only,
    "words_only": words_only,
    "process_only": process_only,
    "forest_only": forest_only,
    "lsa_only": lsa_only,
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


def run(path: Path, methods: Mapping[str, Method] = METHODS) -> dict[str, Any]:
    """Cross-validate methods on the questions that are not test questions, and judge them beside the default."""
    whole = Correctness.from_log(read_folder(path))
    data = whole.rows(np.flatnonzero(whole.split != "test"))
    return {
        "dataset": {
            "n_questions": data.n_questions,
            "n_models": data.n_models,
            "n_cells": int(data.observed.sum()),
            "fingerprint": whole.fingerprint(),
        },
        "protocol": {"path": str(path), "n_folds": N_FOLDS, "n_resamples": N_RESAMPLES, "encoder": DEFAULT_ENCODER},
        "methods": judge(data, cross_validate(data, methods)),
        "default": DEFAULT,
    }


def judge(data: Correctness, forecasts: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, Any]]:
    """Each method's figures, forecasts of shape (n_questions, n_models), and the default's NLL less its, paired."""
    weights = bootstrap_weights(data.groups, N_RESAMPLES, seed=0)
    cells = {name: Cells.from_grid(data.label, p) for name, p in forecasts.items()}
    samples = {name: c.mean_by_weights(nll_by_cell(c), weights) for name, c in cells.items()}
    methods: dict[str, dict[str, Any]] = {
        name: {"nll": float(nll_by_cell(c).mean()), "auc": float(auc(c, np.ones(data.n_questions))), "ece": ece(c)}
        for name, c in cells.items()
    }
    for name, method in methods.items():
        if name != DEFAULT:
            method["default_minus_this_ci95"] = {"nll": interval(samples[DEFAULT] - samples[name])}
    return methods


def render(figures: Mapping[str, Any]) -> str:
    """Lay the figures out as text."""
    dataset, protocol = figures["dataset"], figures["protocol"]
    lines = [
        f"{protocol['path']}: {dataset['n_questions']:,} questions, {dataset['n_models']} models, "
        f"{protocol['n_folds']}-fold",
        f"{'':<16}{'NLL':>8}{'AUC':>8}{'ECE':>8}   the default's NLL less it, 95%",
    ]
    for name, one in figures["methods"].items():
        line = f"{name:<16}{one['nll']:>8.4f}{one['auc']:>8.4f}{one['ece']:>8.4f}"
        if difference := one.get("default_minus_this_ci95"):
            line += f"   {difference['nll'][0]:+.4f} to {difference['nll'][1]:+.4f}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--embedllm", action="store_true", help="EmbedLLM's procedure too, for some minutes more")
    parser.add_argument("--output", type=Path, help="keep all figures in this file, as JSON")
    arguments = parser.parse_args()
    methods = dict(METHODS) | ({"embedllm_mf": baselines.embedllm_mf} if arguments.embedllm else {})
    figures = run(arguments.path, methods)
    print("\n" + render(figures))
    if arguments.output:
        arguments.output.write_text(json.dumps({f"{arguments.path.name}: ablation": figures}), encoding="utf-8")


if __name__ == "__main__":
    main()
