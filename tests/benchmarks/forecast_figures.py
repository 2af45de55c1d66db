"""The figures of the backtests of benchmark forecasts, summed up by regime, method and number of labelled items."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]

N_RESAMPLES = 1000
ENCODER_NOTE = (
    "(b), (c): the encoder's LSA half never saw the benchmark; the bundled half, which is not fitted anew, has read "
    "the train questions of both public logs, without outcomes"
)
NAN = float("nan")
WHOLE = "a, whole log"  # the regime
METHODS = ("embedrouter", "suggested", "suite", "pooled", "sample mean", "elsewhere", "2PL IRT")
MEANING = {
    "suggested": "embedrouter, the N items being those that `forecast --suggest N` names",
    "suite": "embedrouter, the model having labels of N items on every benchmark, not on this one alone",
    "pooled": "embedrouter, told the labels of the other models' N items too",
    "elsewhere": "the model's mean on its other benchmarks, with all their labels: in (a) and (c) for orientation only",
    "2PL IRT": "of items that no model answered it says nothing: n/a in (b) and (c)",
}


@dataclass(frozen=True)
class Cell:
    """One forecast beside its truth; low and high are NaN where a method gives no interval."""

    regime: str
    method: str
    n_labelled: int
    draw: int
    model: str
    benchmark: str
    truth: float
    forecast: float
    low: float
    high: float


def figures(cells: Sequence[Cell], seed: int = 0) -> list[dict[str, Any]]:
    """Sum up by regime, method and N, with 95% intervals by bootstrap over models in (a), benchmarks in (b) and (c).

    mae, its difference `less_sample_mean` on the same forecasts (NaN without labels), spearman (over models within a
    benchmark, averaged over benchmarks), coverage and width of the 90% intervals (NaN where there are none).
    """
    table = pd.DataFrame([asdict(cell) for cell in cells])
    found = []
    for regime, of_regime in table.groupby("regime"):
        unit = "benchmark" if regime in {"b", "c"} else "model"
        sampled = of_regime[of_regime["method"] == "sample mean"].set_index(
            ["n_labelled", "draw", "model", "benchmark"]
        )
        for (method, n), part in of_regime.groupby(["method", "n_labelled"]):
            error = (part["forecast"] - part["truth"]).abs().to_numpy()
            keys = pd.MultiIndex.from_frame(part[["n_labelled", "draw", "model", "benchmark"]])
            sample = sampled.reindex(keys)
            inside = (part["low"] <= part["truth"]) & (part["truth"] <= part["high"])
            covered = np.where(part["low"].isna(), np.nan, inside.astype(float))
            measures = {
                "mae": error,
                "less_sample_mean": error - (sample["forecast"] - sample["truth"]).abs().to_numpy(),
                "coverage": covered,
                "width": (part["high"] - part["low"]).to_numpy(),
            }
            of_unit = pd.factorize(part[unit])[0]
            row: dict[str, Any] = {
                "regime": regime,
                "method": method,
                "n_labelled": int(str(n)),
                "n_forecasts": len(part),
            }
            for name, values in measures.items():
                row[name] = _mean_and_interval(values, of_unit, seed)
            by_name = method == "embedrouter" and regime != "c"  # of a new model without labels only its name tells
            told_apart = n or method == "elsewhere" or regime == "b" or by_name
            ranks = part.groupby(["benchmark", "draw"])[["truth", "forecast"]].apply(_spearman)
            row["spearman"] = _mean_and_interval(
                ranks.to_numpy() if told_apart else np.full(len(ranks), np.nan),
                pd.factorize(ranks.index.get_level_values(0))[0],
                seed,
            )
            found.append(row)
    return found


def _spearman(part: pd.DataFrame) -> float:
    truth, forecast = rankdata(part["truth"]), rankdata(part["forecast"])
    if len(part) < 3 or np.ptp(forecast) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(np.corrcoef(truth, forecast)[0, 1])


def _mean_and_interval(values: Floats, unit: NDArray[np.int64], seed: int) -> list[float | None]:
    """The mean over forecasts and its interval under resampled units; None where there is nothing to average."""
    seen = ~np.isnan(values)
    if not seen.any():
        return [None, None, None]
    n_units = int(unit.max()) + 1
    total = np.bincount(unit[seen], weights=values[seen], minlength=n_units)
    count = np.bincount(unit[seen], minlength=n_units)
    weights = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), size=N_RESAMPLES)
    drawn = weights @ count
    samples = (weights @ total)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(samples, [0.025, 0.975])
    return [float(values[seen].mean()), float(low), float(high)]


def render(result: Mapping[str, Any]) -> str:
    """Lay the figures out for reading."""
    lines = [
        f"{result['dataset']}: {result['n_models']} models, {result['n_benchmarks']} benchmarks; 95% intervals by "
        "bootstrap over models in (a), benchmarks in (b), (c)"
    ]
    order = {method: at for at, method in enumerate(METHODS)}
    for regime, title in (
        ("a", "(a) known benchmark, new model"),
        (WHOLE, "(a) the whole log as one"),
        ("b", "(b) new benchmark, known model"),
        ("c", "(c) both new"),
    ):
        lines += [
            "",
            f"{title:<33}{'n':>7}{'MAE':>24}{'less sample mean':>26}{'Spearman':>10}{'coverage':>20}{'width':>7}",
        ]
        rows = [row for row in result["figures"] if row["regime"] == regime]
        for row in sorted(rows, key=lambda row: (row["n_labelled"], order[row["method"]])):
            lines.append(
                f"  N = {row['n_labelled']:<4}{row['method']:<22}{row['n_forecasts']:>7,}"
                f"{_shown(row['mae'], 3):>24}{_shown(row['less_sample_mean'], 3, '+'):>26}"
                f"{_shown(row['spearman'][:1], 2):>10}{_shown(row['coverage'], 2):>20}{_shown(row['width'][:1], 2):>7}"
            )
    return "\n".join([*lines, "", ENCODER_NOTE, *(f"{name}: {meaning}" for name, meaning in MEANING.items())])


def _shown(figure: Sequence[float | None], digits: int, sign: str = "") -> str:
    if figure[0] is None:
        return "n/a"
    shown = [f"{value:{sign}.{digits}f}" for value in figure if value is not None]
    return shown[0] if len(shown) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"
