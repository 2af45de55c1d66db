"""The figures of the onboarding backtest: summed up over models with intervals, and as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.metrics import interval

Floats = NDArray[np.float64]

N_BOOTSTRAP = 2000


@dataclass(frozen=True)
class Measured:
    """What was measured of one model at one number of answers, averaged over answer sets.

    resampled: the coverage of its intervals on each set of test questions drawn anew, (n_resampled,).
    """

    means: dict[str, float]
    resampled: Floats


def summarize(models: Sequence[Measured]) -> dict[str, Any]:
    """Means over models, and the differences that are claimed with their 95% intervals over models."""
    names = dict.fromkeys(name for one in models for name in one.means)
    values = {name: np.array([one.means.get(name, np.nan) for one in models]) for name in names}
    figures: dict[str, Any] = {name: float(np.nanmean(value)) for name, value in values.items()}
    pairs = {
        "fold_in.nll - two_numbers.nll": ("fold_in_compared.nll", "two_numbers.nll"),
        "fold_in.hits - two_numbers.hits": ("fold_in_compared.hits", "two_numbers.hits"),
        "permuted.nll - permuted_two_numbers.nll": ("permuted.nll", "permuted_two_numbers.nll"),
        "fold_in.nll - no_family.nll": ("fold_in_compared.nll", "no_family.nll"),
        "stratified.nll - fold_in.nll": ("stratified.nll", "fold_in_compared.nll"),
        "d_optimal.nll - stratified.nll": ("d_optimal.nll", "stratified.nll"),
        "d_optimal.error - stratified.error": ("d_optimal.error", "stratified.error"),
        "fold_in_once.nll - retrain.nll": ("fold_in_once.nll", "retrain.nll"),
        "fold_in_once.hits - retrain.hits": ("fold_in_once.hits", "retrain.hits"),
    }
    differences = {name: values[a] - values[b] for name, (a, b) in pairs.items() if a in values}
    coverages = {name: values[name] for name in ("covered", "logged.covered", "by_benchmark.covered")}
    figures["intervals"] = {name: _over_models(value) for name, value in {**differences, **coverages}.items()}
    figures["intervals"]["covered, questions too"] = _over_both(
        values["covered"], np.array([one.resampled for one in models])
    )
    return figures


def _over_models(value: Floats) -> dict[str, float]:
    value = value[~np.isnan(value)]  # full fits are tried on some models only
    drawn = np.random.default_rng(0).integers(len(value), size=(N_BOOTSTRAP, len(value)))
    low, high = interval(value[drawn].mean(axis=1))
    return {"mean": float(value.mean()), "low": low, "high": high}


def _over_both(value: Floats, resampled: Floats) -> dict[str, float]:
    """Bootstrap over models and over the test questions at once (Owen 2007); resampled: (M, n_resampled)."""
    n, n_resampled = resampled.shape
    rng = np.random.default_rng(0)
    models, questions = rng.integers(n, size=(N_BOOTSTRAP, n)), rng.integers(n_resampled, size=(N_BOOTSTRAP, 1))
    low, high = interval(resampled[models, questions].mean(axis=1))
    return {"mean": float(value.mean()), "low": low, "high": high}


def render(figures: dict[str, Any]) -> str:
    """The tables as text."""
    lines = [
        f"{figures['path']}: {figures['n_models']} models held out in turn, {figures['n_test_questions']:,} "
        f"{figures['held_out']} questions, {figures['n_sets']} sets of answers each; in brackets 95% over models"
    ]
    by_n: dict[str, dict[str, Any]] = figures["by_n"]

    def table(title: str, columns: list[str], row: Callable[[dict[str, Any]], list[str]]) -> None:
        cells = [["N", *columns], *([n, *row(one)] for n, one in by_n.items())]
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        lines.append(f"\n{title}")
        lines.extend("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)

    def shown(one: dict[str, Any], name: str) -> str:
        found = one["intervals"].get(name)
        return "-" if found is None else f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"

    names = ("fold_in_compared", "two_numbers", "model_mean")
    once = ("fold_in_once", "retrain")
    for measure, title in (("nll", "NLL"), ("hits", "accuracy of forecasts at 1/2")):
        table(
            title,
            ["fold_in", *names[1:], "less two numbers", *once, "less retrain"],
            lambda one, m=measure: [  # type: ignore[misc]
                *(f"{one[f'{name}.{m}']:.4f}" for name in names),
                shown(one, f"fold_in.{m} - two_numbers.{m}"),
                *(f"{one[f'{name}.{m}']:.4f}" if f"{name}.{m}" in one else "-" for name in once),
                shown(one, f"fold_in_once.{m} - retrain.{m}"),
            ],
        )
    table(
        "control: question embeddings permuted, NLL",
        ["fold_in", "two_numbers", "less two numbers"],
        lambda one: [
            f"{one['permuted.nll']:.4f}",
            f"{one['permuted_two_numbers.nll']:.4f}",
            shown(one, "permuted.nll - permuted_two_numbers.nll"),
        ],
    )
    table(
        "which questions are asked, NLL and error of the accuracy",
        [
            "random",
            "stratified",
            "less random",
            "d_optimal",
            "less stratified",
            "error: random",
            "stratified",
            "d_optimal",
        ],
        lambda one: [
            f"{one['fold_in_compared.nll']:.4f}",
            f"{one['stratified.nll']:.4f}",
            shown(one, "stratified.nll - fold_in.nll"),
            f"{one['d_optimal.nll']:.4f}",
            shown(one, "d_optimal.nll - stratified.nll"),
            *(f"{one[f'{name}.error']:.4f}" for name in ("fold_in_compared", "stratified", "d_optimal")),
        ],
    )
    table(
        "90% intervals of the accuracy on these questions, which are known by their text alone",
        ["coverage", "over questions too", "width", "binomial width", "error", "sample mean's"],
        lambda one: [
            shown(one, "covered").replace("+", ""),
            shown(one, "covered, questions too").replace("+", ""),
            f"{one['width']:.3f}",
            f"{one['binomial_width']:.3f}",
            f"{one['fold_in.error']:.4f}",
            f"{one['sample_mean.error']:.4f}",
        ],
    )
    table(
        "90% intervals that the verb prints, of the accuracy on logged questions, whose outcomes the pool knows",
        ["coverage", "width", "by benchmark", "width"],
        lambda one: [
            shown(one, "logged.covered").replace("+", ""),
            f"{one['logged.width']:.3f}",
            shown(one, "by_benchmark.covered").replace("+", ""),
            f"{one['by_benchmark.width']:.3f}",
        ],
    )
    table(
        "shrinkage to the family, and processor time of a fold-in",
        ["NLL less that without family", "ms"],
        lambda one: [shown(one, "fold_in.nll - no_family.nll"), f"{one['fold_in.ms']:.2f}"],
    )
    return "\n".join(lines)
