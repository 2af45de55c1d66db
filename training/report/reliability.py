"""Whether P(correct) means what it says, as bins of a reliability diagram."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.held_out import mean_and_error

Floats = NDArray[np.float64]

N_BINS = 12


@dataclass(frozen=True)
class Reliability:
    """Bins of equal mass: mean forecast, share of right answers, its standard error, outcomes; of length n_bins."""

    forecast: Floats
    actual: Floats
    error: Floats
    n: NDArray[np.int64]


def reliability(label: NDArray[np.float32], p: Floats, groups: NDArray[np.int64]) -> Reliability:
    """Sort the observed cells by forecast into bins of equal mass; label and p of shape (n_questions, n_models)."""
    question, model = np.nonzero(~np.isnan(label))
    forecast, right = p[question, model], label[question, model].astype(np.float64)
    order = np.argsort(forecast, kind="stable")
    bins = [part for part in np.array_split(order, min(N_BINS, len(order))) if len(part)]
    judged = [mean_and_error(right[part], groups[question[part]]) for part in bins]
    return Reliability(
        forecast=np.array([forecast[part].mean() for part in bins]),
        actual=np.array([mean for mean, _ in judged]),
        error=np.array([error for _, error in judged]),
        n=np.array([len(part) for part in bins]),
    )
