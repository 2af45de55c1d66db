"""Whether P(correct) means what it says: the default's calibration on the test questions of a long-format folder.

    python -m tests.benchmarks.bench_calibration PATH [--on val]

Expected calibration error in 15 bins of equal mass, pooled, by benchmark and by model, beside that of a perfectly
calibrated forecaster on the same questions; what is promised of the models that a policy chooses, beside the share that
was right; what limits on errors leave answered and how often that was wrong, with the whole pool and with random halves
of it, which nothing was calibrated for; and the 90% interval of P(correct) on groups of 100 like questions.
`--on val` leaves val out of the fit and judges on it, for whoever is choosing something.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from data.importers.long import read_folder
from router.encoder import DEFAULT_ENCODER
from router.encoder.registry import fit_encoder
from router.scorer import Forecast
from router.surface import describe
from training.abstention import keep_limits
from training.dataset import Correctness
from training.evaluate import hide_test
from training.fit import fit_scorer
from training.metrics import Cells
from training.promises import Misses, calibration, judge_ece, like_questions, promises
from training.routing import RoutingBench

ERROR_LIMITS = (0.05, 0.1, 0.2)


def run(path: Path, quick: bool = False, on: str = "test") -> dict[str, Any]:
    """Fit without the questions to judge on, and judge."""
    del quick
    data = Correctness.from_log(read_folder(path))
    if on == "val":
        data = data.rows(np.flatnonzero(data.split != "test"))
        data = replace(data, split=np.where(data.split == "val", "test", "train"))
    encoder = fit_encoder(DEFAULT_ENCODER, [data.prompts[row] for row in data.learnable("train")])
    vectors, surface = encoder.encode(data.prompts), describe(data.prompts)
    fitted = fit_scorer(hide_test(data), vectors)
    scorer = fitted.scorer
    forecast = scorer.forecast(vectors, surface)
    p, test = forecast.p_correct, data.part("test")
    label = data.label[test]
    of_test = Forecast(forecast.p_correct[test], forecast.low[test], forecast.high[test], forecast.novelty[test])
    misses = Misses.of(label, of_test, like_questions(scorer.features(vectors[test], surface[test])))
    by_novelty = [
        asdict(judge_ece(f"novelty {name}", Cells.from_grid(label[rows], p[test][rows])))
        for name, rows in _halves(forecast.novelty[test])
    ]
    return {
        "path": str(path),
        "on": on,
        "ece": [asdict(one) for one in calibration(label, p[test], data.benchmarks[test], data.model_names)],
        "ece_by_novelty": by_novelty,
        "promises": [
            asdict(one) | {"short": one.short, "kept": one.kept}
            for one in promises(RoutingBench.from_data(data), p, data.groups)
        ],
        "abstention": [
            asdict(one) for one in keep_limits(fitted.abstention, label, p[test], data.groups[test], ERROR_LIMITS)
        ],
        "interval": {"coverage": misses.coverage, "mean_width": misses.width, "n_groups": len(misses.miss)},
    }


def _halves(novelty: np.ndarray) -> list[tuple[str, np.ndarray]]:
    middle = float(np.median(novelty))
    return [(f"up to {middle:.2f}", novelty <= middle), (f"above {middle:.2f}", novelty > middle)]


def render(figures: Mapping[str, Any]) -> str:
    """Lay the figures out as text."""
    lines = [
        f"{figures['path']}: calibration on {figures['on']}",
        f"{'':<44}{'ECE':>8}{'perfect':>9}{'95%':>8}{'n':>9}",
    ]
    one_by_one = [one for one in figures["ece"] if not one["name"].startswith("model ")]
    lines += [_ece_line(one) for one in (*one_by_one, *figures["ece_by_novelty"])]
    models = [one for one in figures["ece"] if one["name"].startswith("model ")]
    above = sorted(
        (one for one in models if one["ece"] > one["perfect_95"]), key=lambda one: one["perfect_95"] - one["ece"]
    )
    if models:
        mean = {key: float(np.mean([one[key] for one in models])) for key in ("ece", "perfect", "perfect_95")}
        lines.append(_ece_line({"name": f"mean of {len(models)} models", "n": sum(one["n"] for one in models), **mean}))
        lines.append(f"{len(above)} of {len(models)} models above the 95% of a perfect forecaster (5% expected)")
        lines += [_ece_line(one) for one in above[:5]]
    lines.append(f"\n{'chosen by':<28}{'promised':>9}{'right':>8}{'95%':>18}{'short':>8}{'n':>7}")
    for one in figures["promises"]:
        name = "argmax" if one["threshold"] is None else f"cheapest, P >= {one['threshold']:g}"
        low, high = one["ci95"]
        kept = "" if one["kept"] else "   more than .02 short"
        figures_of = f"{one['promised']:>9.3f}{one['right']:>8.3f}{low:>10.3f} to{high:>6.3f}{one['short']:>+8.3f}"
        lines.append(f"{name:<28}{figures_of}{one['n']:>7}{kept}")
    lines.append(f"\n{'errors at most':<28}{'answered':>9}{'wrong':>8}{'95%':>18}{'n':>9}{'of half the pool':>26}")
    for one in figures["abstention"]:
        name = f"{one['max_error']:g}"
        if one["threshold"] is None:
            lines.append(f"{name:<28}{'nothing can be promised':>9}")
            continue
        low, high = one["ci95"]
        half = f"{one['half_share']:>17.1%}{one['half_error']:>9.3f}"
        name += f", P >= {one['threshold']:.3f}"
        lines.append(
            f"{name:<28}{one['share']:>9.1%}{one['error']:>8.3f}{low:>10.3f} to{high:>6.3f}{one['n']:>9,}{half}"
        )
    of = figures["interval"]
    lines.append(
        f"\n90% intervals of P(correct) hold in {of['coverage']:.1%} of {of['n_groups']} groups of 100 like questions "
        f"or more; mean width {of['mean_width']:.3f}"
    )
    return "\n".join(lines)


def _ece_line(one: Mapping[str, Any]) -> str:
    return f"{one['name']:<44}{one['ece']:>8.4f}{one['perfect']:>9.4f}{one['perfect_95']:>8.4f}{one['n']:>9,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a long-format folder")
    parser.add_argument("--on", choices=("test", "val"), default="test", help="the questions to judge on")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = run(arguments.path, on=arguments.on)
    print(json.dumps(figures) if arguments.json else render(figures))


if __name__ == "__main__":
    main()
