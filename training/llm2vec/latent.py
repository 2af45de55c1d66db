"""Where token embeddings start: at the corpus's latent semantic directions, so that few steps suffice.

A token's row is its inverse document frequency times its place in the leading singular vectors of token counts by
text (Deerwester et al. 1990), on the scale that random rows would have.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SCALE = 0.05  # root mean square of the rows' entries
NOISE = 0.01  # keeps tokens that no text holds apart


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
    latent = idf[:, None] * right.T  # (V, rank)
    rows[:, :rank] += SCALE * latent / np.sqrt(np.square(latent).mean())
    return rows.astype(np.float32)
