"""The latest prompts' vectors, kept in memory: a prompt that is asked again is not encoded again."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from router.encoder.base import Vectors

N_KEPT = 4_096
FEW = 64  # prompts, which are looked up among the latest; a training's would only drive those out


class LatestVectors:
    """Keeps what `compute` said of the latest prompts, by their digests; of many prompts at once it keeps nothing."""

    def __init__(self, compute: Callable[[Sequence[str]], Vectors], n_kept: int = N_KEPT) -> None:
        self._compute = compute
        self._n_kept = n_kept
        self._kept: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Look prompts up and compute the rest together, as an array of shape (n_prompts, dim)."""
        if not 0 < len(prompts) <= FEW:
            return self._compute(prompts)
        digests = [blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest() for prompt in prompts]
        with self._lock:
            known = {digest: self._kept[digest] for digest in digests if digest in self._kept}
        missing = {digest: prompt for digest, prompt in zip(digests, prompts, strict=True) if digest not in known}
        if missing:
            known |= zip(missing, self._compute(list(missing.values())), strict=True)
        with self._lock:
            for digest in digests:
                self._kept[digest] = known[digest]
                self._kept.move_to_end(digest)
            while len(self._kept) > self._n_kept:
                self._kept.popitem(last=False)
        return np.array([known[digest] for digest in digests], dtype=np.float32)
