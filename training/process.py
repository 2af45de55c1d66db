"""The text side: a Gaussian process from a prompt's features to its question embedding, on landmarks (Nyström).

It regresses targets on features; what the targets mean is `training.posterior`'s matter. With as many landmarks as
questions it is exact; with fewer, its cost grows linearly with the questions (Williams and Seeger 2001).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, eigh, solve_triangular
from scipy.sparse import csr_array

from router.scorer import Singles, in_columns, kernel
from training.chunks import each_chunk, sum_chunks

Floats = NDArray[np.float64]

AROUND = 8  # points for each landmark that say where it should be
COLUMNS = 256  # of a triangle worked on together
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
        """Find landmarks among points of shape (N, D), the last columns surface, and look at all points from them."""
        n = len(points)
        landmarks = points if n <= n_landmarks else find_landmarks(points, n_landmarks, seed)
        gram = kernel(landmarks, landmarks, n_surface).astype(np.float64)
        gram[np.diag_indices_from(gram)] += JITTER
        root = cholesky(gram, lower=True, overwrite_a=True)
        whitening, columns = _inverse(root), in_columns(landmarks, n_surface)
        design = np.empty((n, len(landmarks)), dtype=np.float32)

        def see(rows: slice) -> tuple[Floats, ...]:
            seen = design[rows]
            for some, part in _times_lower(kernel(points[rows], landmarks, n_surface, columns), whitening):
                seen[:, some] = part
            return ((seen.T @ seen).astype(np.float64),)

        (gram_of_design,) = sum_chunks(n, see)
        return cls(landmarks, design, Span(root, gram_of_design))


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
        whitening = _inverse(inner_root)
        leverage = np.zeros((len(basis.design), 1))

        def measure(rows: slice) -> None:
            for _, half in _times_lower(basis.design[rows], whitening):
                leverage[rows, 0] += np.einsum("nj,nj->n", half, half)

        each_chunk(len(leverage), measure)
        return cls(basis, noise, inner_root, np.minimum(leverage, 1 - 1e-6))

    def leave_one_out(self, targets: Floats) -> Floats:
        """Predict each question from all the others, (N, K): a question must not vouch for itself."""
        n = len(targets)
        if n == 1:
            return np.zeros_like(targets)  # there are no others
        mean = targets.mean(axis=0)
        both = np.hstack([targets - mean, np.ones((n, 1))])
        design, on_design = self.basis.design, self._on_design(both).astype(np.float32)
        smoothed = np.concatenate(each_chunk(n, lambda rows: design[rows] @ on_design))
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
        design, targets = self.basis.design, centred.astype(np.float32)
        (moments,) = sum_chunks(len(design), lambda rows: ((design[rows].T @ targets[rows]).astype(np.float64),))
        on_design: Floats = cho_solve((self.inner_root, True), moments, check_finite=False)
        return on_design


def find_landmarks(points: Singles, n_landmarks: int, seed: int) -> Singles:
    """Draw landmarks among points of shape (N, D) and move each to the mean of the points around it, (n_landmarks, D).

    One step of Lloyd's algorithm, on a few points for each landmark. What landmarks cannot tell of a kernel is bounded
    by how far points lie from them (Zhang, Tsang and Kwok 2008): so placed, 1,000 tell about what 1,500 drawn ones do.
    """
    drawn = np.random.default_rng(seed).choice(len(points), min(len(points), AROUND * n_landmarks), replace=False)
    around, landmarks = points[drawn], points[drawn[:n_landmarks]]
    columns, half = np.ascontiguousarray(landmarks.T), np.square(landmarks).sum(axis=1) / 2

    def nearest_of(rows: slice) -> NDArray[np.intp]:
        nearest: NDArray[np.intp] = np.argmax(around[rows] @ columns - half, axis=1)
        return nearest

    nearest = np.concatenate(each_chunk(len(around), nearest_of))
    n = len(around)
    belongs = csr_array((np.ones(n, dtype=np.float32), (nearest, np.arange(n))), shape=(n_landmarks, n))
    count = np.bincount(nearest, minlength=n_landmarks)[:, None]
    means: Singles = np.where(count > 0, belongs @ around / np.maximum(count, 1), landmarks).astype(np.float32)
    return means


def _times_lower(rows: Singles, lower: Singles) -> Iterator[tuple[slice, Singles]]:
    """Multiply rows (n, J) by a lower triangle's transpose, (J, J), some columns at a time; its zeros take no time."""
    for start in range(0, len(lower), COLUMNS):
        some = slice(start, start + COLUMNS)
        yield some, rows[:, : some.stop] @ lower[some, : some.stop].T


def _inverse(root: Floats) -> Singles:
    """Invert a lower Cholesky root, (J, J), for products: solving with it would keep other threads waiting."""
    identity = np.eye(len(root))
    inverse: Singles = solve_triangular(root, identity, lower=True, check_finite=False).astype(np.float32)
    return inverse
