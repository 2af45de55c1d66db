"""The one seam between text and vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Turns prompts into question vectors.

    Two encoders with one `fingerprint` give the same vectors for the same prompts, but for how machines round.
    `depends_on_logs` is True for an encoder that is fitted on the training questions; its vectors are not worth
    caching, because the next training makes another encoder. `is_light` is True for one that encodes a short prompt in
    a fraction of a millisecond. `is_serial` is True for one that keeps one core busy, so that several threads get more
    done at once; one that spreads over the cores by itself, or computes elsewhere, is asked by one thread.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def depends_on_logs(self) -> bool: ...

    @property
    def is_light(self) -> bool: ...

    @property
    def is_serial(self) -> bool: ...

    def encode(self, prompts: Sequence[str]) -> Vectors:
        """Encode prompts as an array of shape (n_prompts, dim); an empty list gives shape (0, dim)."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `router.encoder.registry.open_encoder` needs to bring this encoder back."""
        ...
