"""Where token embeddings start: at the corpus's latent semantic directions, so that few steps suffice.

A token's row is its place in the leading singular vectors of token counts by text (Deerwester et al. 1990). All rows
are equally long, as the model's last norm would make them anyway.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SCALE = 0.05  # root mean square of a row's entries
NOISE = 1e-3  # keeps tokens that no text holds apart


def latent_embeddings(
    sequences: Sequence[Sequence[int]], n_tokens: int, dim: int, seed: int = 0
) -> NDArray[np.float32]:
    """Embed tokens by the texts that they occur in, of shape (n_tokens, dim)."""
    from scipy.sparse import csr_array
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    counted = [np.unique(np.asarray(row), return_counts=True) for row in sequences]
    ends = np.cumsum([0, *(len(tokens) for tokens, _ in counted)])
    tokens = np.concatenate([tokens for tokens, _ in counted])
    idf = np.log((1 + len(sequences)) / (1 + np.bincount(tokens, minlength=n_tokens))) + 1  # (V,)
    weights = np.concatenate([(1 + np.log(n)) * idf[row] / np.sqrt(len(row)) for row, n in counted])
    texts = csr_array((weights, tokens, ends), shape=(len(sequences), n_tokens))  # (N, V)
    rank = min(dim, *(size - 1 for size in texts.shape))
    rng = np.random.default_rng(seed)
    rows = rng.normal(scale=NOISE, size=(n_tokens, dim))  # (V, D)
    with threadpool_limits(1):  # the same bytes on any number of cores
        _, _, right = randomized_svd(texts, rank, n_iter=3, random_state=seed)
    rows[:, :rank] += right.T / np.sqrt(np.square(right).mean())
    rows *= SCALE / np.sqrt(np.square(rows).mean(axis=1, keepdims=True))
    return rows.astype(np.float32)
