"""Every estimator behind one interface: data with hidden test labels and question vectors in, a grid of P(correct) out.

What `embedrouter evaluate` compares is a part of these; the rest are too slow for it, or kept to compare with.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from router.encoder.base import Vectors
from router.surface import describe
from training import baselines
from training.dataset import Correctness
from training.evaluate import ALL_BASELINES, DEFAULT, Method
from training.fit import fit_scorer
from training.mf import biased_mf


def embedrouter(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    """The default: fit a scorer and let it forecast every question, of shape (n_questions, n_models)."""
    return fit_scorer(data, vectors, seed).scorer.p_correct(vectors, describe(data.prompts))


ESTIMATORS: Mapping[str, Method] = {
    DEFAULT: embedrouter,
    **ALL_BASELINES,
    "embedllm_mf_tuned": baselines.embedllm_mf_tuned,
    "biased_mf": biased_mf,
}
