"""Encode prompts by windows of their tokens: a prompt is the mean of its windows, weighted by their tokens."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from router.encoder.base import Vectors

Window = list[int]


def mean_of_windows(
    prompts: Sequence[Sequence[Window]],
    dim: int,
    batches: Callable[[Sequence[int]], Iterable[Sequence[int]]],
    encode: Callable[[list[Window]], Vectors],
) -> Vectors:
    """Encode the windows of prompts, of shape (n_prompts, dim); a prompt without any is all zeros.

    batches: groups positions of windows by their lengths; encode: windows that run together, as (n_windows, dim).
    """
    vectors = np.zeros((len(prompts), dim), dtype=np.float32)  # (N, D)
    n_tokens = [sum(map(len, windows)) for windows in prompts]
    read = [(row, window) for row, windows in enumerate(prompts) for window in windows]
    for some in batches([len(window) for _, window in read]):
        for i, vector in zip(some, encode([read[i][1] for i in some]), strict=True):
            row, window = read[i]
            vectors[row] += np.float32(len(window) / n_tokens[row]) * vector
    return vectors


def reading(max_tokens: int, n_windows: int) -> str:
    """How much of a prompt is read, as fingerprints say it."""
    return f"{max_tokens} tokens" + (f" in each of {n_windows} windows" if n_windows > 1 else "")
