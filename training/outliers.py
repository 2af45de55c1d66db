"""Fold in a model that may be nothing like the pool it comes to, as where nobody can read its answers.

The pool's prior knows no such model. Beside it stands another, about the same mean, whose bias may be anywhere; answers
that contradict the first say which of the two holds (a contaminated prior, Tukey 1960).
"""

import numpy as np
from numpy.typing import NDArray

from router.scorer import Singles
from training.fold_in import ModelPosterior, fold_in
from training.forecast import BROKEN, BROKEN_SHARE, log_joint, widened
from training.posterior import Posterior

Floats = NDArray[np.float64]


def fold_in_outlier(
    prior: ModelPosterior, questions: Posterior, label: Floats, weight: Singles | None = None
) -> ModelPosterior:
    """Update what is known of a model as `fold_in` does, from whichever of the two priors its answers make likelier."""
    priors = [prior, widened(prior, BROKEN**2)]
    found = [fold_in(one, questions, label, weight) for one in priors]
    observed = ~np.isnan(label)
    seen = Posterior(questions.mean[observed], questions.covariance[observed])
    counts = np.ones(observed.sum()) if weight is None else weight[observed].astype(np.float64)
    log_odds = np.log([1 - BROKEN_SHARE, BROKEN_SHARE])
    for k, (one, before) in enumerate(zip(found, priors, strict=True)):  # each one's evidence, by Laplace
        log_odds[k] += log_joint(one.mean[None], before, seen, label[observed], counts)[0]
        log_odds[k] += np.linalg.slogdet(one.covariance)[1] / 2
    return found[int(log_odds.argmax())]
