"""The text side: a Gaussian process from a prompt's features to its question embedding, on landmarks (Nyström).

It regresses targets on features; what the targets mean is `training.posterior`'s matter. With as many landmarks as
questions it is exact; with fewer, its cost grows linearly with the questions (Williams and Seeger 2001).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from router.scorer import Singles, kernel

Floats = NDArray[np.float64]

JITTER = 1e-4  # of the kernel's diagonal: near-duplicate questions make it singular otherwise


@dataclass(frozen=True)
class Basis:
    """Landmarks and the questions seen from them.

    landmarks: (J, D); root: (J, J), lower Cholesky root of their kernel; design: (N, J), whose rows' products
    approximate the kernel between questions.
    """

    landmarks: Singles
    root: Floats
    design: Floats

    @classmethod
    def of(cls, points: Singles, n_surface: int, n_landmarks: int, seed: int) -> "Basis":
        """Draw landmarks among points of shape (N, D), the last columns surface, and look at all points from them."""
        n = len(points)
        chosen = np.arange(n)
        if n > n_landmarks:
            chosen = np.sort(np.random.default_rng(seed).choice(n, n_landmarks, replace=False))
        landmarks = points[chosen]
        gram = kernel(landmarks, landmarks, n_surface).astype(np.float64)
        gram[np.diag_indices_from(gram)] += JITTER
        root = cholesky(gram, lower=True, overwrite_a=True)
        similarity = kernel(landmarks, points, n_surface).astype(np.float64)  # (J, N)
        design = solve_triangular(root, similarity, lower=True, overwrite_b=True, check_finite=False).T
        return cls(landmarks, root, design)


@dataclass(frozen=True)
class Smoother:
    """Ridge regression on a basis for one noise level, ready for any targets.

    half: (J, N), with half.T @ half the hat matrix H; leverage: (N, 1), H's diagonal.
    """

    basis: Basis
    inner_root: Floats
    half: Floats
    leverage: Floats

    @classmethod
    def of(cls, basis: Basis, noise: float) -> "Smoother":
        inner = basis.design.T @ basis.design
        inner[np.diag_indices_from(inner)] += noise
        inner_root = cholesky(inner, lower=True, overwrite_a=True)
        half = solve_triangular(inner_root, basis.design.T, lower=True, check_finite=False)
        leverage = np.minimum(np.square(half).sum(axis=0), 1 - 1e-6)[:, None]
        return cls(basis, inner_root, half, leverage)

    def leave_one_out(self, targets: Floats) -> Floats:
        """Predict each question from all the others, (N, K): a question must not vouch for itself."""
        mean = targets.mean(axis=0)
        centred = targets - mean
        fitted = self.half.T @ (self.half @ centred)
        held_out: Floats = mean + (fitted - self.leverage * centred) / (1 - self.leverage)
        return held_out

    def weights(self, targets: Floats) -> Floats:
        """What `kernel(x, landmarks)` is multiplied by to predict centred targets, (J, K)."""
        centred = targets - targets.mean(axis=0)
        on_design = solve_triangular(self.inner_root, self.half @ centred, lower=True, trans="T")
        weights: Floats = solve_triangular(self.basis.root, on_design, lower=True, trans="T")
        return weights
