"""Fold in a model that may be nothing like the pool it comes to, as where nobody can read its answers.

The pool's prior knows no such model. Beside it stands another, about the same mean, whose bias may be anywhere; answers
that contradict the first say which of the two holds (a contaminated prior, Tukey 1960).
"""

import numpy as np
from numpy.typing import NDArray

from router.scorer import Singles
from training.fold_in import ModelPosterior, fold_in
from training.forecast import BROKEN, BROKEN_SHARE, log_evidence, widened
from training.posterior import Posterior

Floats = NDArray[np.float64]


def fold_in_outlier(
    prior: ModelPosterior, questions: Posterior, label: Floats, weight: Singles | None = None
) -> ModelPosterior:
    """Update what is known of a model as `fold_in` does, from whichever of the two priors its answers make likelier."""
    observed = ~np.isnan(label)
    seen, given = questions.rows(observed), label[observed]
    counts = None if weight is None else weight[observed]
    priors = [prior, widened(prior, BROKEN**2)]
    found = [fold_in(one, seen, given, counts) for one in priors]
    evidence = [log_evidence(one, before, seen, given, counts) for one, before in zip(found, priors, strict=True)]
    return found[int((np.log([1 - BROKEN_SHARE, BROKEN_SHARE]) + evidence).argmax())]
