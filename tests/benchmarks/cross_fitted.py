"""Cross-fitted forecasts on vectors, and how they compare: every encoder's on the same folds, cells and resamples.

The process's noise and the forest's share are those that cross-validation chooses for LSA, the same for all.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from threadpoolctl import threadpool_limits

from router.encoder.base import Vectors
from training.alternation import FitSettings, Log, fit_path
from training.calibrate import fit_platt
from training.dataset import Correctness
from training.folds import deal_folds
from training.metrics import Cells, auc, bootstrap_weights, interval, nll_by_cell

Floats = NDArray[np.float64]

NOISES = (4.0, 2.0, 1.0)  # a path: its last is the one
FOREST_SHARE = 0.3
N_RESAMPLES = 500


def cross_fit(data: Correctness, vectors: Vectors, seed: int = 0) -> Floats:
    """Forecast every question by a scorer fitted without its fold, calibrated together; (n_questions, n_models)."""
    settings = FitSettings()
    folds = deal_folds(data.groups, settings.n_folds, seed)
    log = Log.of(data, vectors, np.arange(data.n_questions))
    p = np.zeros(data.label.shape)
    with threadpool_limits(1):
        for k in np.unique(folds):
            step = fit_path(log.rows(folds != k), NOISES, seed, settings)[-1]
            grown = step.knowing().with_forest(log.rows(folds != k), seed)
            held_out = log.rows(folds == k)
            scorer = replace(grown.scorer, forest_share=FOREST_SHARE)
            p[folds == k] = scorer.p_correct(held_out.vectors, held_out.surface)
    z = logit(np.clip(p, 1e-6, 1 - 1e-6)).astype(np.float32)
    platt = fit_platt(z, data.label)
    calibrated: Floats = 1 / (1 + np.exp(-(platt.slope * z.astype(np.float64) + platt.offset)))
    return calibrated


def beside(words: Vectors, states: Vectors, share: float) -> Vectors:
    """Join LSA's vectors and a model's as `router.encoder.joined` does, the model's with a share of the length."""
    sides = []
    for raw, weight in ((words, 1 - share), (states, share)):
        centred = np.where(raw.any(axis=1, keepdims=True), raw - raw.mean(axis=0), 0)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        sides.append(np.sqrt(weight) * np.divide(centred, length, out=np.zeros_like(centred), where=length > 0))
    return np.hstack(sides).astype(np.float32)


@dataclass(frozen=True)
class Forecasts:
    """Forecasts by name, (n_questions, n_models) each, of the same questions."""

    data: Correctness
    p: dict[str, Floats]

    def table(self, against: str, title: str = "") -> str:
        """Each one's NLL and AUC, and the paired differences to one of them: 95% by bootstrap over groups."""
        weights = bootstrap_weights(self.data.groups, N_RESAMPLES, seed=0)
        cells = {name: Cells.from_grid(self.data.label, p) for name, p in self.p.items()}
        loss = {name: c.mean_by_weights(nll_by_cell(c), weights) for name, c in cells.items()}
        area = {name: auc(c, weights) for name, c in cells.items()}
        once = np.ones(self.data.n_questions)
        lines = [f"{title:<30}{'NLL':>8}{'AUC':>8}   {'NLL less that of ' + against:<32}AUC less"]
        for name, c in cells.items():
            nll, of_all = nll_by_cell(c).mean(), float(auc(c, once))
            difference = nll - nll_by_cell(cells[against]).mean()
            gain = of_all - float(auc(cells[against], once))
            shown = (
                ""
                if name == against
                else (
                    f"   {_told(difference, loss[name] - loss[against]):<32}{_told(gain, area[name] - area[against])}"
                )
            )
            lines.append(f"{name:<30}{nll:>8.4f}{of_all:>8.4f}{shown}")
        return "\n".join(lines)


def _told(estimate: float, samples: Floats) -> str:
    low, high = interval(samples)
    return f"{estimate:+.4f} ({low:+.4f} to {high:+.4f})"
