"""How wrong the expected lengths and costs of answers are, on the test answers whose length was logged.

Each figure stands beside what every model's mean length gives, on the same answers, with the difference's interval by
bootstrap over near-duplicate groups. An answer whose length was not logged counts nowhere.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.dataset import Correctness
from training.metrics import interval
from training.routing import CHARS_PER_TOKEN, mean_output_tokens

Floats = NDArray[np.float64]

MEASURES = ("median_absolute_log_error", "relative_error", "total_error")


def cost_error(data: Correctness, tokens: Floats, weights: Floats) -> dict[str, Any] | None:
    """Judge expected lengths, of shape (n_questions, n_models); None where no test answer's length was logged.

    weights: of shape (n_resamples, n_test_questions). median_absolute_log_error: half of all answers are off by a
    factor of no more than its exponential; relative_error: the sum of absolute errors over the sum of what is true;
    total_error: the sum of forecasts over the sum of what is true, less 1. `tokens` is of all answers with a known
    length, `cost` of those by priced models, input included; the tokens of a prompt are a quarter of its characters.
    """
    test = data.part("test")
    actual = np.maximum(data.output_tokens[test].astype(np.float64), 1.0)
    forecast, mean = tokens[test], np.broadcast_to(mean_output_tokens(data), actual.shape)
    judged = ~np.isnan(actual + forecast + mean)
    if not judged.any():
        return None
    price_in, price_out = data.prices.T / 1e6
    n_input = np.array([len(data.prompts[row]) / CHARS_PER_TOKEN for row in test])[:, None]
    cost, forecast_cost, mean_cost = (n_input * price_in + n * price_out for n in (actual, forecast, mean))
    priced = judged & ~np.isnan(data.prices).any(axis=1) & (cost > 0)
    estimated = [
        name for m, name in enumerate(data.model_names) if judged[:, m].any() and name in data.estimated_tokens
    ]
    return {
        "n_answers": int(judged.sum()),
        "n_models": int(judged.any(axis=0).sum()),
        "n_models_estimated_from_characters": len(estimated),
        "tokens": _beside_mean(actual, forecast, mean, judged, weights),
        "cost": _beside_mean(cost, forecast_cost, mean_cost, priced, weights) if priced.any() else None,
        "n_priced_models": int(priced.any(axis=0).sum()),
    }


def _beside_mean(
    actual: Floats, forecast: Floats, mean: Floats, judged: NDArray[np.bool_], weights: Floats
) -> dict[str, Any]:
    once = np.ones((1, len(actual)))
    ours, means = (_measure(actual, f, judged, np.vstack([once, weights])) for f in (forecast, mean))
    figures: dict[str, Any] = {name: float(ours[name][0]) for name in MEASURES}
    figures["ci95"] = {name: interval(ours[name][1:]) for name in MEASURES}
    figures["model_mean"] = {name: float(means[name][0]) for name in MEASURES}
    figures["minus_model_mean_ci95"] = {name: interval((ours[name] - means[name])[1:]) for name in MEASURES[:2]}
    return figures


def _measure(actual: Floats, forecast: Floats, judged: NDArray[np.bool_], weights: Floats) -> dict[str, Floats]:
    """Take every measure under question weights (n_resamples, N); each of shape (n_resamples,)."""
    true, said = np.where(judged, actual, 0), np.where(judged, forecast, 0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no counted answer
        total = weights @ true.sum(axis=1)
        relative = weights @ np.abs(said - true).sum(axis=1) / total
        off = weights @ said.sum(axis=1) / total - 1
    question, model = np.nonzero(judged)
    error = np.abs(np.log(forecast[question, model] / actual[question, model]))
    return dict(zip(MEASURES, (_medians(error, question, weights), relative, off), strict=True))


def _medians(value: Floats, question: NDArray[np.int64], weights: Floats) -> Floats:
    """Weighted medians of cells under question weights (n_resamples, N), of shape (n_resamples,)."""
    order = np.argsort(value, kind="stable")
    value, question = value[order], question[order]
    median = np.full(len(weights), np.nan)
    for i, weight in enumerate(weights):
        below = np.cumsum(weight[question])
        if below[-1] > 0:
            median[i] = value[np.searchsorted(below, below[-1] / 2)]
    return median
