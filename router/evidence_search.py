"""The stored vectors nearest to a vector: all compared, or, where they are too many for that, found by faiss.

Beyond the exact limit an inverted file without compression (IVF-flat): k-means puts the vectors into lists, and a
search reads the lists whose centres are nearest. It takes no memory beside the vectors and is built in time linear in
them; how many lists a search reads is chosen afterwards, by what it finds. This module knows vectors only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from router.encoder.base import Vectors

if TYPE_CHECKING:
    import faiss

EXTRA = "pip install 'embedrouter[faiss]'"

K = 10  # recall is measured at it
TARGET_RECALL = 0.99
N_TRIED = 500  # questions that choose how many lists are read, and as many others that measure recall
ALIKE = 1e-6  # of two similarities: what single precision cannot tell apart
# faiss's own guidelines (github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index): 4 to 16 sqrt(N) lists,
# trained on 30 to 256 vectors each
LISTS_PER_SQRT = 4
LEAST_PER_LIST, MOST_PER_LIST = 39, 64
FEWEST_LISTS_READ = 8
BLOCK_BYTES = 2**20  # of an index that is read from a file


@dataclass(frozen=True)
class Found:
    """Of shape (k,) each, the nearest first: rows of the stored vectors, and their cosine with what was searched."""

    rows: NDArray[np.int64]
    similarity: NDArray[np.float32]


@dataclass(frozen=True)
class Exact:
    """Every vector is compared. vectors: float32 of shape (n, dim), of unit length or zero."""

    vectors: Vectors
    method: ClassVar = "exact"
    recall_at_10: ClassVar = 1.0

    def nearest(self, direction: NDArray[np.float32], k: int) -> Found:
        """The k rows of the greatest cosine with a vector of shape (dim,) and unit length; ties by row."""
        similarity = self.vectors @ direction  # (N,)
        k = min(k, len(similarity))
        top = np.argpartition(-similarity, k - 1)[:k]
        tied = np.flatnonzero(similarity >= similarity[top].min())  # a tie at the edge must not depend on the partition
        rows = tied[np.lexsort((tied, -similarity[tied]))][:k]
        return Found(rows, similarity[rows])


@dataclass(frozen=True)
class Approximate:
    """A few of faiss's lists are compared; `recall_at_10` is the share of the ten truly nearest that this finds."""

    index: "faiss.IndexIVFFlat"
    recall_at_10: float
    method: ClassVar = "faiss"

    def nearest(self, direction: NDArray[np.float32], k: int) -> Found:
        """About the k rows of the greatest cosine with a vector of shape (dim,) and unit length; ties by row."""
        similarity, rows = (found[0] for found in self.index.search(direction[None], min(k, self.index.ntotal)))
        order = np.lexsort((rows, -similarity))[: np.count_nonzero(rows >= 0)]  # -1 stands where the lists held no more
        return Found(rows[order], similarity[order])

    def as_bytes(self) -> NDArray[np.uint8]:
        """As faiss writes it, of shape (n_bytes,)."""
        import faiss

        return faiss.serialize_index(self.index)

    @classmethod
    def read(cls, read: Callable[[int], bytes], recall_at_10: float) -> "Approximate":
        """Bring back what `as_bytes` gave, from a function that returns the next bytes, as many as it is asked for."""
        import faiss

        reader = faiss.PyCallbackIOReader(read, BLOCK_BYTES)  # type: ignore[attr-defined]  # missing in faiss's stubs
        index = faiss.read_index(reader)
        if not isinstance(index, faiss.IndexIVFFlat):
            raise ValueError(f"the index is a {type(index).__name__}, not an IndexIVFFlat")
        return cls(index, recall_at_10)


def faiss_installed() -> bool:
    """Whether the extra is there and can be loaded."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def approximate(vectors: Vectors, *, target_recall: float = TARGET_RECALL, seed: int = 0) -> Approximate:
    """Index vectors of shape (n, dim), let searches read as many lists as the recall asks for, and measure theirs.

    Recall is that of stored vectors, each searched among all the others; those that measure it chose nothing.
    """
    import faiss

    n, dim = vectors.shape
    n_lists = max(1, min(round(LISTS_PER_SQRT * n**0.5), n // LEAST_PER_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True  # the centres of directions are directions
    index.cp.seed = seed
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, MOST_PER_LIST
    index.train(vectors)
    index.add(vectors)
    directed = np.flatnonzero(vectors.any(axis=1))
    rows = np.random.default_rng(seed).permutation(directed)[: 2 * N_TRIED]
    if len(rows) < 2:
        index.nprobe = n_lists
        return Approximate(index, 1.0)
    k = min(K, n - 1)
    similarity, found = faiss.knn(vectors[rows], vectors, k + 1, metric=faiss.METRIC_INNER_PRODUCT)  # (R, K + 1)
    tenth = _of_others(similarity, found, rows)[:, -1]  # (R,)

    def recall(tried: slice) -> float:
        similarity, found = index.search(vectors[rows[tried]], k + 1)
        near = _of_others(similarity, found, rows[tried])
        return float((near >= tenth[tried, None] - ALIKE).mean())  # one as near is as good

    choosing, measuring = slice(0, None, 2), slice(1, None, 2)
    index.nprobe = min(FEWEST_LISTS_READ, n_lists)
    while index.nprobe < n_lists and recall(choosing) < target_recall:
        index.nprobe = min(2 * index.nprobe, n_lists)
    return Approximate(index, recall(measuring))


def _of_others(similarity: NDArray[np.float32], found: NDArray[np.int64], own: NDArray[np.int64]) -> Vectors:
    """The similarities found by questions of rows `own`, (R, K + 1), without each with itself: (R, K), falling."""
    others = np.where(found == own[:, None], -np.inf, similarity)
    return -np.sort(-others, axis=1)[:, :-1]
