"""Forecasts of artifacts on held-out questions, and how sure a mean over them is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from router.artifact import Artifact
from training.dataset import Correctness
from training.metrics import Cells
from training.vectors import question_vectors

Floats = NDArray[np.float64]


def held_out_cells(engine: Engine, artifact: Artifact, held_out: Correctness, models: Sequence[str]) -> Cells:
    """Forecast the observed cells of some models, all of which both the artifact and the data know."""
    label = held_out.label[:, [held_out.model_names.index(model) for model in models]]
    if np.isnan(label).all():
        return Cells(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), held_out.n_questions)
    p = artifact.p_correct_of(question_vectors(engine, artifact.encoder, held_out), held_out.prompts)
    return Cells.from_grid(label, p[:, [artifact.model_names.index(model) for model in models]])


def mean_and_error(values: Floats, groups: NDArray[np.int64]) -> tuple[float, float]:
    """Average cells, with a standard error that takes a group's cells as one piece of evidence.

    groups: each cell's near-duplicate group; models asked the same question are not independent either. From a
    single group no error can be told: NaN.
    """
    mean = float(values.mean())
    _, group = np.unique(groups, return_inverse=True)
    n_groups = int(group.max()) + 1
    if n_groups < 2:
        return mean, float("nan")
    by_group = np.bincount(group, weights=values - mean)  # (n_groups,)
    error = np.sqrt(n_groups / (n_groups - 1) * np.sum(by_group**2)) / len(values)
    return mean, float(error)
