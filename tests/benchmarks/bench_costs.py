"""How well the lengths and costs of answers are expected, beside each model's mean, and what choosing by them brings.

    python -m tests.benchmarks.bench_costs PATH [--quick] [--json]

Reads a long-format folder by its own splits. The cost-quality curve (AIQ, arXiv 2403.12031) is taken twice with the
same P(correct): choices see each question's own expected cost, or every model's mean; what answers did cost counts,
on the questions for which all priced models' answers have a logged length.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.importers.long import read_folder
from router.encoder import DEFAULT_ENCODER
from router.encoder.registry import fit_encoder
from router.surface import describe
from training.baselines import knn
from training.cost_error import MEASURES, cost_error
from training.costs import fit_lengths
from training.dataset import Correctness
from training.evaluate import N_RESAMPLES, hide_test
from training.fit import fit_scorer
from training.metrics import bootstrap_weights
from training.routing import RoutingBench, area_under_curve, mean_output_tokens

N_TIMED = 2000
LEAST_QUESTIONS = 50


def run(path: Path, quick: bool = False) -> dict[str, Any]:
    """Measure a folder; `quick` forecasts P(correct) by kNN instead of the default, and resamples less."""
    data = Correctness.from_log(read_folder(path))
    encoder = fit_encoder(DEFAULT_ENCODER, [data.prompts[row] for row in data.learnable("train")])
    vectors = encoder.encode(data.prompts)
    surface = describe(data.prompts)
    visible = hide_test(data)
    started = time.perf_counter()
    fitted = fit_lengths(visible, vectors)
    seconds = time.perf_counter() - started
    tokens = fitted.forecaster.tokens(vectors, surface)
    weights = bootstrap_weights(data.groups[data.part("test")], 100 if quick else N_RESAMPLES, seed=0)
    p = knn(visible, vectors, 0) if quick else fit_scorer(visible, vectors).scorer.p_correct(vectors, surface)
    means = np.broadcast_to(mean_output_tokens(visible), tokens.shape)
    one = slice(0, 1)
    timed = []
    for _ in range(N_TIMED):
        began = time.perf_counter()
        fitted.forecaster.tokens(vectors[one], surface[one])
        timed.append(time.perf_counter() - began)
    return {
        "path": str(path),
        "seconds_to_fit": seconds,
        "microseconds_a_prompt": float(np.median(timed)) * 1e6,
        "squared_log_error_by_rank": {str(rank): error for rank, error in fitted.error_by_rank.items()},
        "error": cost_error(data, tokens, weights),
        "aiq": {"own": _aiq(data, p, tokens), "model_mean": _aiq(data, p, means)},
    }


def _aiq(data: Correctness, p: NDArray[np.float64], tokens: NDArray[np.float64]) -> float | None:
    priced = np.flatnonzero(~np.isnan(data.prices).any(axis=1) & ~np.isnan(tokens).all(axis=0))
    known = ~np.isnan(data.output_tokens[:, priced]).any(axis=1) | (data.split != "test")
    split = np.where(known, data.split, "val")
    bench = RoutingBench.from_data(replace(data, split=split), tokens=tokens).priced()
    if not bench.countable or len(bench.rows) < LEAST_QUESTIONS:
        return None
    mean_costs = bench.cost.mean(axis=0)
    return area_under_curve(*bench.curve(p), float(mean_costs.min()), float(mean_costs.max()))


def render(figures: dict[str, Any]) -> str:
    """The figures as a table for people."""
    error = figures["error"]
    if error is None:
        return f"{figures['path']}: no test answer's length is in the log"
    lines = [
        f"{figures['path']}: {error['n_answers']:,} test answers of {error['n_models']} models, "
        f"{error['n_models_estimated_from_characters']} of them with tokens estimated from characters",
        f"fitted in {figures['seconds_to_fit']:.1f} s; {figures['microseconds_a_prompt']:.0f} microseconds a prompt",
        f"{'':<34}{'expected':>10}{'mean':>10}   difference, 95%",
    ]
    for name in ("tokens", "cost"):
        for measure in MEASURES if error[name] else ():
            ours = error[name]
            low, high = ours["minus_model_mean_ci95"].get(measure, (None, None))
            difference = "" if low is None else f"{low:+.3f} to {high:+.3f}"
            title = f"{name}: {measure.replace('_', ' ')}"
            lines.append(f"{title:<34}{ours[measure]:>10.3f}{ours['model_mean'][measure]:>10.3f}   {difference}")
    if figures["aiq"]["own"] is not None:
        own, mean = figures["aiq"]["own"], figures["aiq"]["model_mean"]
        lines.append(f"{'AIQ of the priced pool':<34}{own:>10.4f}{mean:>10.4f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--quick", action="store_true", help="kNN's P(correct), fewer resamples")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    figures = run(arguments.path, arguments.quick)
    print(json.dumps(figures) if arguments.json else render(figures))


if __name__ == "__main__":
    main()
