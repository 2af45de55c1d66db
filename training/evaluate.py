"""The comparison: our forecaster beside the baselines, on test questions that are read once.

Every method sees the same data with its test labels hidden, and those of test questions' near-duplicates in other
splits, which a log may state. The figures of all methods are taken on the same cells and under the same bootstrap
resamples of near-duplicate groups, so that differences are paired.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.importers.long import Splitting, read_folder
from router.encoder import DEFAULT_ENCODER
from router.encoder.base import Vectors
from router.encoder.registry import fit_encoder
from router.surface import describe
from training import baselines
from training.cost_error import cost_error
from training.costs import FittedLengths, fit_lengths
from training.dataset import Correctness, require_every_split
from training.fit import Fitted, fit_scorer
from training.learned_outcomes import leave_out_learned
from training.metrics import (
    Cells,
    auc,
    bootstrap_weights,
    brier_by_cell,
    ece,
    hit_by_cell,
    interval,
    nll_by_cell,
    within_question_pairs,
)
from training.routing import RoutingBench, area_under_curve, cost_to_reach

Floats = NDArray[np.float64]
Method = Callable[[Correctness, Vectors, int], Floats]
Progress = Callable[[str], None]

DEFAULT = "embedrouter"
QUICK_BASELINES: Mapping[str, Method] = {
    "model_mean": baselines.model_mean,
    "benchmark_mean": baselines.benchmark_mean,
    "knn": baselines.knn,
}
ALL_BASELINES: Mapping[str, Method] = {**QUICK_BASELINES, "embedllm_mf": baselines.embedllm_mf}
N_RESAMPLES = 1000


@dataclass(frozen=True)
class Comparison:
    """The fitted default, the expected lengths of answers, and the JSON object that compares with everything else."""

    fitted: Fitted
    lengths: FittedLengths
    figures: dict[str, Any]


@dataclass(frozen=True)
class _Judged:
    """One method's figures and their bootstrap samples, each of shape (n_resamples,)."""

    figures: dict[str, Any]
    samples: dict[str, Floats]


def compare(
    data: Correctness,
    vectors: Vectors,
    *,
    seed: int = 0,
    methods: Mapping[str, Method] = ALL_BASELINES,
    protocol: Mapping[str, Any] | None = None,
    on_progress: Progress = lambda _: None,
) -> Comparison:
    """Fit the default and every baseline in `methods`, and judge them all on the test questions."""
    visible = hide_test(data)
    on_progress("fitting embedrouter")
    started = time.perf_counter()
    fitted = fit_scorer(visible, vectors, seed)
    seconds = {DEFAULT: time.perf_counter() - started}
    surface = describe(data.prompts)
    forecasts = {DEFAULT: fitted.scorer.p_correct(vectors, surface)}
    for name, method in methods.items():
        on_progress(f"fitting {name}")
        started = time.perf_counter()
        forecasts[name] = method(visible, vectors, seed)
        seconds[name] = time.perf_counter() - started
    on_progress("fitting the lengths of answers")
    lengths = fit_lengths(visible, vectors, seed)
    tokens = lengths.forecaster.tokens(vectors, surface)
    on_progress("reading the test questions")
    return Comparison(fitted, lengths, judge(data, forecasts, seconds, seed=seed, protocol=protocol, tokens=tokens))


def evaluate_folder(
    path: Path,
    *,
    split: Splitting = "auto",
    seed: int = 0,
    encoder_spec: str = DEFAULT_ENCODER,
    on_progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Compare on a long-format folder, without a database, by its split column where it has one."""
    on_progress(f"reading {path}")
    log = read_folder(path, split=split, seed=seed)
    data = Correctness.from_log(log)
    require_every_split(data)
    on_progress(f"encoding {data.n_questions:,} questions with {encoder_spec}")
    encoder = fit_encoder(encoder_spec, [data.prompts[row] for row in data.learnable("train")])
    left = leave_out_learned(data, encoder_spec)
    protocol = {"path": str(path), "split": split, "encoder": encoder_spec, "n_left_out": left.n_left_out}
    vectors = encoder.encode(data.prompts)
    return compare(left.data, vectors, seed=seed, protocol=protocol, on_progress=on_progress).figures


def hide_test(data: Correctness) -> Correctness:
    """The same data without what is known only of the answers to test questions, and to near-duplicates of these."""
    hidden = data.held_out[:, None]
    return replace(
        data,
        label=np.where(hidden, np.float32(np.nan), data.label),
        output_tokens=np.where(hidden, np.float32(np.nan), data.output_tokens),
    )


def judge(
    data: Correctness,
    forecasts: Mapping[str, Floats],
    seconds: Mapping[str, float],
    *,
    seed: int = 0,
    protocol: Mapping[str, Any] | None = None,
    tokens: Floats | None = None,
) -> dict[str, Any]:
    """Compare forecasts of shape (n_questions, n_models) on the test questions, as the JSON object of `evaluate`.

    tokens: the expected lengths of answers, likewise; without them every model's mean.
    """
    test, near_test = data.part("test"), data.near_test()
    if not data.observed[test].any():
        raise ValueError("no outcome on any test question: there is nothing to compare on")
    weights = bootstrap_weights(data.groups[test], N_RESAMPLES, seed)
    bench = RoutingBench.from_data(data, tokens=tokens)
    references = _references(bench)
    judged = {name: _judge_one(data, p, test, weights, bench) for name, p in forecasts.items()}
    methods: dict[str, Any] = {}
    for name, one in judged.items():
        methods[name] = one.figures | {"fit_seconds": round(seconds[name], 3)}
        if name != DEFAULT and DEFAULT in judged:
            ours = judged[DEFAULT].samples
            methods[name]["default_minus_this_ci95"] = _intervals(
                {measure: ours[measure] - one.samples[measure] for measure in one.samples}
            )
    return {
        "dataset": {
            "n_questions": data.n_questions,
            "n_models": data.n_models,
            "n_cells": int(data.observed.sum()),
            "n_test_questions": len(test),
            "n_test_cells": int(data.observed[test].sum()),
            "benchmarks": sorted(set(data.benchmarks.tolist())),
            "fingerprint": data.fingerprint(),
        },
        "protocol": {
            "seed": seed,
            "bootstrap": f"{N_RESAMPLES} paired resamples of near-duplicate groups of test questions",
            "n_test_groups": len(np.unique(data.groups[test])),
            "n_near_test": len(near_test),
            "n_near_test_cells": int(data.observed[near_test].sum()),
            **(protocol or {}),
        },
        "methods": methods,
        "references": {name: None if right is None else float(right.mean()) for name, right in references.items()},
        "reference_ci95": {
            name: None if right is None else interval(_mean_over(bench, right, weights, test))
            for name, right in references.items()
        },
        "cost_forecast": None if tokens is None else cost_error(data, tokens, weights),
        "best_single_model": data.model_names[bench.columns[bench.best_single]] if bench.countable else None,
        "default": DEFAULT,
    }


def _judge_one(data: Correctness, p: Floats, test: NDArray[np.int64], weights: Floats, bench: RoutingBench) -> _Judged:
    cells = Cells.from_grid(data.label[test], p[test])
    once = np.ones(len(test))
    nll, hit, brier = nll_by_cell(cells), hit_by_cell(cells), brier_by_cell(cells)
    concordant, pairs = within_question_pairs(data.label[test], p[test])
    figures: dict[str, Any] = {
        "accuracy": float(cells.mean_by_weights(hit, once)),
        "auc": _or_none(float(auc(cells, once))),
        "auc_within_question": _or_none(float(concordant.sum() / pairs.sum()) if pairs.sum() else float("nan")),
        "nll": float(cells.mean_by_weights(nll, once)),
        "brier": float(cells.mean_by_weights(brier, once)),
        "ece": ece(cells),
        "routing_accuracy": None,
    }
    with np.errstate(invalid="ignore"):
        samples = {
            "accuracy": cells.mean_by_weights(hit, weights),
            "auc": auc(cells, weights),
            "nll": cells.mean_by_weights(nll, weights),
            "auc_within_question": (weights @ concordant) / (weights @ pairs),
        }
    if bench.countable:
        right = bench.right(bench.choose(p))
        figures["routing_accuracy"] = float(right.mean())
        samples["routing_accuracy"] = _mean_over(bench, right, weights, test)
        figures["routing"] = _routing(bench, p, right)
    figures["ci95"] = _intervals(samples)
    return _Judged(figures, samples)


def _routing(bench: RoutingBench, p: Floats, right: Floats) -> dict[str, Any]:
    single = float(bench.label[:, bench.best_single].mean())
    oracle = float(bench.label.max(axis=1).mean())
    routing: dict[str, Any] = {
        "n_models": len(bench.columns),
        "n_questions": len(bench.rows),
        "gap_closed": (float(right.mean()) - single) / (oracle - single) if oracle > single else None,
        "cost_at_best_single": None,
        "aiq": None,
    }
    priced = bench.priced()
    if priced.countable:
        cost, quality = priced.curve(p)
        single_cost = float(priced.cost[:, priced.best_single].mean())
        single_quality = float(priced.label[:, priced.best_single].mean())
        reached = cost_to_reach(cost, quality, single_quality)
        mean_costs = priced.cost.mean(axis=0)
        routing["n_priced_models"] = len(priced.columns)
        routing["cost_at_best_single"] = reached / single_cost if reached is not None and single_cost > 0 else None
        routing["aiq"] = area_under_curve(cost, quality, float(mean_costs.min()), float(mean_costs.max()))
        routing["curve"] = {"cost_usd": cost.tolist(), "quality": quality.tolist()}
    return routing


def _references(bench: RoutingBench) -> dict[str, Floats | None]:
    """What no forecast changes, right or wrong by question: the best single model (by train), oracle and random."""
    if not bench.countable:
        return {"best_single": None, "oracle": None, "random": None}
    return {
        "best_single": bench.label[:, bench.best_single],
        "oracle": bench.label.max(axis=1),
        "random": bench.label.mean(axis=1),
    }


def _mean_over(bench: RoutingBench, right: Floats, weights: Floats, test: NDArray[np.int64]) -> Floats:
    """Average over the bench's questions under weights that cover all test questions, of shape (n_resamples,)."""
    here = weights[:, np.searchsorted(test, bench.rows)]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = (here @ right) / here.sum(axis=1)
    return mean


def _intervals(samples: Mapping[str, Floats]) -> dict[str, tuple[float, float]]:
    """Take the interval of every measure but those that no resample defines."""
    return {measure: interval(values) for measure, values in samples.items() if not np.isnan(values).all()}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
