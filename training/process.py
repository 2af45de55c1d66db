"""The text side: a Gaussian process from a prompt's features to its question embedding, on landmarks (Nyström).

It regresses targets on features; what the targets mean is `training.posterior`'s matter. With as many landmarks as
questions it is exact; with fewer, its cost grows linearly with the questions (Williams and Seeger 2001).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, eigh, solve_triangular

from router.scorer import Singles, kernel, squared_norms

Floats = NDArray[np.float64]

CHUNK = 2048  # questions looked at together
JITTER = 1e-4  # of the kernel's diagonal: near-duplicate questions make it singular otherwise


@dataclass(frozen=True)
class Span:
    """What landmarks can tell of the questions: their kernel's Cholesky root and the design's gram matrix, (J, J)."""

    root: Floats
    gram: Floats

    def known(self, noise: float, n_directions: int) -> Floats:
        """Directions (J, R): |kernel(x, landmarks) known|^2 of the prior variance at x is explained.

        The leading ones of the process's posterior; the others hold next to nothing and count as unknown.
        """
        last = [max(len(self.gram) - n_directions, 0), len(self.gram) - 1]
        eigenvalue, eigenvector = eigh(self.gram, subset_by_index=last, check_finite=False)
        share = np.clip(eigenvalue, 0, None) / (np.clip(eigenvalue, 0, None) + noise)
        directions: Floats = solve_triangular(
            self.root, eigenvector * np.sqrt(share), lower=True, trans="T", check_finite=False
        )
        return directions


@dataclass(frozen=True)
class Basis:
    """Landmarks and the questions seen from them.

    landmarks: (J, D); design: (N, J), whose rows' products approximate the kernel between questions, in single
    precision for its size; span: its gram matrix and the root of the landmarks' kernel.
    """

    landmarks: Singles
    design: Singles
    span: Span

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
        single_root, norms = root.astype(np.float32), squared_norms(landmarks, n_surface)
        design = np.empty((n, len(landmarks)), dtype=np.float32)
        for start in range(0, n, CHUNK):
            similarity = kernel(points[start : start + CHUNK], landmarks, n_surface, norms).T  # (J, chunk)
            design[start : start + CHUNK] = solve_triangular(
                single_root, similarity, lower=True, overwrite_b=True, check_finite=False
            ).T
        return cls(landmarks, design, Span(root, (design.T @ design).astype(np.float64)))


@dataclass(frozen=True)
class Smoother:
    """Ridge regression on a basis for one noise level, ready for any targets.

    inner_root: (J, J), lower Cholesky root of the regularized gram matrix; leverage: (N, 1), the diagonal of the hat
    matrix.
    """

    basis: Basis
    noise: float
    inner_root: Floats
    leverage: Floats

    @classmethod
    def of(cls, basis: Basis, noise: float) -> "Smoother":
        inner = basis.span.gram.copy()
        inner[np.diag_indices_from(inner)] += noise
        inner_root = cholesky(inner, lower=True, overwrite_a=True)
        single_root = inner_root.astype(np.float32)
        leverage = np.empty((len(basis.design), 1))
        for start in range(0, len(leverage), CHUNK):
            half = solve_triangular(single_root, basis.design[start : start + CHUNK].T, lower=True, check_finite=False)
            leverage[start : start + CHUNK, 0] = np.einsum("jn,jn->n", half, half)
        return cls(basis, noise, inner_root, np.minimum(leverage, 1 - 1e-6))

    def leave_one_out(self, targets: Floats) -> Floats:
        """Predict each question from all the others, (N, K): a question must not vouch for itself."""
        n = len(targets)
        if n == 1:
            return np.zeros_like(targets)  # there are no others
        mean = targets.mean(axis=0)
        both = np.hstack([targets - mean, np.ones((n, 1))])
        smoothed = self.basis.design @ self._on_design(both).astype(np.float32)
        fitted, row_sum = smoothed[:, :-1], smoothed[:, -1:]
        own = np.minimum(self.leverage + (1 - row_sum) / n, 1 - 1e-6)  # of mean + H (targets - mean), the diagonal
        held_out: Floats = (mean + fitted - own * targets) / (1 - own)
        return held_out

    def weights(self, targets: Floats) -> Floats:
        """What `kernel(x, landmarks)` is multiplied by to predict centred targets, (J, K)."""
        on_design = self._on_design(targets - targets.mean(axis=0))
        weights: Floats = solve_triangular(self.basis.span.root, on_design, lower=True, trans="T")
        return weights

    def _on_design(self, centred: Floats) -> Floats:
        """Regress centred targets on the design, (J, K)."""
        moments = self.basis.design.T @ centred.astype(np.float32)
        on_design: Floats = cho_solve((self.inner_root, True), moments.astype(np.float64), check_finite=False)
        return on_design
