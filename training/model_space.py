"""Where a fit places its models, measured in what it predicts of them.

Embeddings are defined only up to a linear map that the questions' embeddings undo. What two models' logits on the same
questions differ by is not, so distances are taken in logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.forecast import p_correct
from training.posterior import Posterior

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ModelSpace:
    """The models of a fit and the questions it was fitted to.

    names: of length n_models; embedding: of shape (n_models, K); bias: of shape (n_models,); questions: the posterior
    of n_questions embeddings, given text and outcomes.
    """

    names: tuple[str, ...]
    embedding: Floats
    bias: Floats
    questions: Posterior

    def models(self, names: Sequence[str]) -> "ModelSpace":
        """The same space with some of its models, in this order."""
        column = [self.names.index(name) for name in names]
        return ModelSpace(tuple(names), self.embedding[column], self.bias[column], self.questions)

    @cached_property
    def logits(self) -> Floats:
        """Each model's logit on each question, of shape (n_models, n_questions)."""
        logits: Floats = self.embedding @ self.questions.mean.T + self.bias[:, None]
        return logits

    @cached_property
    def level(self) -> Floats:
        """Each model's mean logit, of shape (n_models,)."""
        level: Floats = self.logits.mean(axis=1)
        return level

    @cached_property
    def position(self) -> Floats:
        """Coordinates about the pool's centre, (n_models, K), whose distances are `distance`; up to a rotation."""
        centred = self.questions.mean - self.questions.mean.mean(axis=0)
        value, vector = np.linalg.eigh(centred.T @ centred / max(len(centred), 1))
        root = (vector * np.sqrt(np.maximum(value, 0))) @ vector.T  # (K, K), the questions' spread
        position: Floats = (self.embedding - self.embedding.mean(axis=0)) @ root
        return position

    @cached_property
    def distance(self) -> Floats:
        """Root mean square difference of two models' logits, levels set aside; of shape (n_models, n_models)."""
        apart = self.position[:, None, :] - self.position[None, :, :]
        distance: Floats = np.sqrt(np.square(apart).sum(axis=2))
        return distance

    @cached_property
    def p_correct(self) -> Floats:
        """P(correct) given text and outcomes, questions' errors integrated out; of shape (n_questions, n_models)."""
        return p_correct(np.hstack([self.embedding, self.bias[:, None]]), self.questions).T
